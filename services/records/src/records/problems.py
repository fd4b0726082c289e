"""The problems of the records service, as the client sees them."""

from common.problems import RETRY_AFTER_SECONDS, InvalidRequest, Problem, Unavailable


class InvalidForm(InvalidRequest):
    """The multipart body is malformed, or a form field is missing, unknown or repeated."""

    title = "The form is malformed"


class CredentialsTooLate(InvalidRequest):
    """The credentials follow an audio that is too long to wait for them in memory."""

    title = "The credentials come too late in the form"


class UnknownRecord(Problem):
    """The record is absent, not published, or another user's."""

    status_code = 404
    title = "There is no such record"
    may_be_guess = True


class NoWaveform(Problem):
    """The record was made before waveforms were stored, or its waveform is lost."""

    status_code = 404
    title = "The record has no waveform"


class NoOriginal(Problem):
    """The upload did not ask to keep its original, or the original was deleted or is lost."""

    status_code = 404
    title = "The record has no original"

    def __init__(self) -> None:
        super().__init__(
            "This record has no original: its upload did not ask to keep it, or it was deleted, or the object"
            " store has lost it. To keep the WAV of another upload, send keep_original=true."
        )


class LostRecord(Problem):
    """The object store has lost or damaged the MP3, and the operator knows it."""

    status_code = 410
    title = "The MP3 of the record is lost"

    def __init__(self) -> None:
        super().__init__(
            "The MP3 of this record is lost, and the operator of this deployment knows it. If the operator"
            " restores the MP3, the link works again. If you still have the WAV, upload it again."
        )


class IdempotencyKeyInUse(Problem):
    """An upload with the same key is under way. When it is done, the key returns its record."""

    status_code = 409
    title = "An upload with this key is under way"
    header_names = ("Retry-After",)

    def __init__(self, key: str) -> None:
        super().__init__(
            f"An upload with the Idempotency-Key {key!r} is still under way."
            f" Try again in {RETRY_AFTER_SECONDS} seconds."
        )


class IdempotencyKeyReused(Problem):
    """The key has made a record with other options, so this is a different upload."""

    status_code = 422
    title = "The key was used with other options"


class PreconditionFailed(Problem):
    """If-Match or If-Unmodified-Since does not hold for the record (RFC 9110 section 13)."""

    status_code = 412
    title = "The record is not the one that was asked for"


class RangeNotSatisfiable(Problem):
    """The range begins behind the end of the MP3 or of the original (RFC 9110 section 14.4)."""

    status_code = 416
    title = "The range lies outside the recording"
    header_names = ("Content-Range",)


class OriginalsNotKept(Problem):
    """The upload asks to keep its original, and this deployment keeps none (KEEP_ORIGINALS=never)."""

    status_code = 403
    title = "This deployment keeps no originals"

    def __init__(self) -> None:
        super().__init__(
            "The operator of this deployment keeps no originals (KEEP_ORIGINALS=never). Send the upload"
            " without keep_original, or with keep_original=false, and keep the WAV yourself."
        )


class QuotaReached(Problem):
    """The upload does not fit into the user's quota, or into what the deployment may store."""

    status_code = 403
    title = "The quota is reached"


class LargerThanQuota(Problem):
    """The recording alone is larger than the user's quota."""

    status_code = 413
    title = "The recording is larger than the quota"


class RecordingTooLong(Problem):
    """The recording is longer than the limit."""

    status_code = 413
    title = "The recording is too long"


class UnsupportedAudio(Problem):
    """The body is no WAV, or a WAV whose codec, bit depth or sample rate is not supported."""

    status_code = 415
    title = "The audio is not supported"


class OutOfProportion(Problem):
    """The sample rate of the WAV is so low that the MP3 would be far larger than the WAV."""

    status_code = 422
    title = "The MP3 would be far larger than the WAV"


class BrokenAudio(Problem):
    """The WAV's header contradicts itself, or the WAV holds no sound."""

    status_code = 422
    title = "The WAV is broken"


class Busy(Unavailable):
    """This instance takes no more uploads at the moment."""

    title = "Too many uploads at once"


class TooManyUploads(Problem):
    """The user has as many uploads under way as one user may have."""

    status_code = 429
    title = "Too many uploads of one user at once"
    header_names = ("Retry-After",)

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"You have {limit} uploads under way, the limit of one user. Wait until one of them ends."
        )


class UploadInterrupted(Unavailable):
    """The service could not renew the upload's lease, or its user was deleted or blocked. Nothing is kept."""

    title = "The upload was given up"
