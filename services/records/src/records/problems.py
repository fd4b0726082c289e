"""What can go wrong with a record, as the client sees it."""

from common.problems import RETRY_AFTER_SECONDS, InvalidRequest, Problem, Unavailable


class InvalidForm(InvalidRequest):
    """The multipart body is malformed, or a field is missing, unknown or there twice."""

    title = "The form is malformed"


class CredentialsTooLate(InvalidRequest):
    """The credentials stand behind an audio that is too long to be held back until they come."""

    title = "The credentials come too late in the form"


class UnknownRecord(Problem):
    """There is no such record, or it is somebody else's."""

    status_code = 404
    title = "There is no such record"


class NoWaveform(Problem):
    """The record is from before waveforms were made, and its WAV is not kept."""

    status_code = 404
    title = "The record has no waveform"


class IdempotencyKeyInUse(Problem):
    """An upload with the same key is under way; once it is done, its record is the answer to the key."""

    status_code = 409
    title = "An upload with this key is under way"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"An upload with the Idempotency-Key {key!r} is still under way;"
            f" try again in {RETRY_AFTER_SECONDS} seconds.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


class IdempotencyKeyReused(Problem):
    """The key has made a record with other options: this is not the same upload sent again."""

    status_code = 422
    title = "The key was used with other options"


class PreconditionFailed(Problem):
    """If-Match or If-Unmodified-Since does not fit the record (RFC 9110 section 13)."""

    status_code = 412
    title = "The record is not the one that was asked for"


class RangeNotSatisfiable(Problem):
    """The range begins behind the end of the MP3 (RFC 9110 section 14.4)."""

    status_code = 416
    title = "The range lies outside the MP3"


class RecordingTooLong(Problem):
    """The WAV lasts longer than is converted."""

    status_code = 413
    title = "The recording is too long"


class UnsupportedAudio(Problem):
    """The body is no WAV, or one whose codec, depth or sample rate is not converted here."""

    status_code = 415
    title = "The audio is not supported"


class BrokenAudio(Problem):
    """The body is a WAV whose header contradicts itself, or which holds no sound."""

    status_code = 422
    title = "The WAV is broken"


class Busy(Unavailable):
    """As many uploads are under way as this instance takes."""

    title = "Too many uploads at once"


class UploadInterrupted(Unavailable):
    """The upload was given up (its lease ran out, or its user is gone); nothing of it is kept."""

    title = "The upload was given up"
