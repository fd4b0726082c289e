"""Quotas: what a user may store, by the settings or by the user's own columns."""

# In a user's own column: without limit, whatever the setting is.
UNLIMITED = 2**63 - 1


def choose_limit(own: int | None, setting: int | None) -> int | None:
    """Returns the limit that counts: the user's own, or else the setting's. None means without limit."""
    limit = setting if own is None else own
    return None if limit == UNLIMITED else limit
