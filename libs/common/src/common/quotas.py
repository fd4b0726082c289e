"""Quotas: what a user may store, by the settings or by the user's own columns, and what it has stored."""

from typing import Any

from sqlalchemy import Double, Row, cast

from common.settings import ServiceSettings
from common.tables import User

# In a user's own column this value means no limit, whatever the setting is.
UNLIMITED = 2**63 - 1
# The user's own quotas, and the sums of its records: `record_count`, `total_bytes` and `total_seconds`.
QUOTAS = (User.quota_records, User.quota_bytes, User.quota_seconds)
USE = (
    User.record_count,
    User.total_bytes,
    cast(User.total_seconds, Double).label("total_seconds"),
)


def choose_limit(own: int | None, setting: int | None) -> int | None:
    """Returns the limit that counts: the user's own, or else the setting's. None means without limit."""
    limit = setting if own is None else own
    return None if limit == UNLIMITED else limit


def choose_limits(user: Row[Any], settings: ServiceSettings) -> tuple[int | None, int | None, int | None]:
    """Returns how many records, bytes and seconds of audio a user may store. `user` has QUOTAS."""
    return (
        choose_limit(user.quota_records, settings.quota_records),
        choose_limit(user.quota_bytes, settings.quota_bytes),
        choose_limit(user.quota_seconds, settings.quota_seconds),
    )
