"""What a user, and the deployment as a whole, may still store."""

from typing import NamedTuple

from records.problems import LargerThanQuota, QuotaReached

WAY_OUT = "Delete records or originals, or ask the operator of this deployment for a larger quota."


class Room(NamedTuple):
    """The limits that count for a user, and what is stored. A limit that is None does not count."""

    max_records: int | None
    max_bytes: int | None
    max_seconds: int | None
    record_count: int
    total_bytes: int
    total_seconds: float
    max_total_bytes: int | None
    """What all users together may store."""
    stored_bytes: int
    """What all users together have stored; 0 if there is no such limit."""

    def check(self, size_bytes: int, seconds: float) -> None:
        """Checks whether an upload with so many bytes, of its MP3 and its original, and so much audio still
        fits.

        Zeros check whether there is any room at all.

        Raises LargerThanQuota if not even an empty quota had room for it, otherwise QuotaReached.
        """
        if self.max_records is not None and self.record_count >= self.max_records:
            raise QuotaReached(
                f"The quota of this user is {self.max_records} records, and {self.record_count} are stored."
                f" {WAY_OUT}"
            )
        _check_limit("bytes", self.max_bytes, self.total_bytes, size_bytes)
        _check_limit("seconds of audio", self.max_seconds, self.total_seconds, seconds)
        limit, stored = self.max_total_bytes, self.stored_bytes
        if limit is not None and (stored >= limit or stored + size_bytes > limit):
            raise QuotaReached(
                f"This deployment stores at most {limit} bytes for all users, and has stored {stored}."
                " Ask its operator to make room."
            )


def _check_limit(what: str, limit: int | None, used: float, new: float) -> None:
    if limit is None:
        return
    if new > limit or not limit:
        raise LargerThanQuota(
            f"The quota of this user is {limit} {what}, and this recording alone has more. Send a shorter"
            " recording, or ask the operator of this deployment for a larger quota."
        )
    if used >= limit or used + new > limit:
        raise QuotaReached(
            f"The quota of this user is {limit} {what}, and {used:.15g} are stored, so this upload does not"
            f" fit. {WAY_OUT}"
        )
