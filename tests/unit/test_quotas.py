"""Which uploads fit into a quota."""

import pytest

from common.problems import Problem
from common.quotas import UNLIMITED, choose_limit
from records.problems import LargerThanQuota, QuotaReached
from records.quotas import Room

FREE = Room(None, None, None, 3, 1000, 60.0, None, 0)


@pytest.mark.parametrize(
    ("limits", "size_bytes", "seconds", "problem"),
    [
        ({}, 10**12, 10**9, None),
        ({"max_records": 4}, 0, 0, None),
        ({"max_records": 3}, 0, 0, QuotaReached),
        ({"max_records": 0}, 0, 0, QuotaReached),
        ({"max_bytes": 1500}, 500, 0, None),
        ({"max_bytes": 1500}, 501, 0, QuotaReached),
        ({"max_bytes": 1000}, 0, 0, QuotaReached),
        ({"max_bytes": 1500}, 1501, 0, LargerThanQuota),
        ({"max_seconds": 61}, 0, 1.0, None),
        ({"max_seconds": 61}, 0, 1.001, QuotaReached),
        ({"max_seconds": 61}, 0, 61.5, LargerThanQuota),
        ({"max_total_bytes": 5000, "stored_bytes": 4000}, 1000, 0, None),
        ({"max_total_bytes": 5000, "stored_bytes": 4000}, 1001, 0, QuotaReached),
        ({"max_total_bytes": 5000, "stored_bytes": 5000}, 0, 0, QuotaReached),
    ],
)
def test_an_upload_fits_or_is_refused_with_the_limit_and_the_use(
    limits: dict[str, int], size_bytes: int, seconds: float, problem: type[Problem] | None
) -> None:
    room = FREE._replace(**limits)
    if not problem:
        room.check(size_bytes, seconds)
        return
    with pytest.raises(problem) as refused:
        room.check(size_bytes, seconds)
    (limit,) = [value for name, value in limits.items() if name.startswith("max_")]
    assert f" {limit} " in refused.value.detail
    assert "perator" in refused.value.detail


@pytest.mark.parametrize(
    ("own", "setting", "limit"),
    [(None, None, None), (None, 5, 5), (7, 5, 7), (0, 5, 0), (UNLIMITED, 5, None), (UNLIMITED, None, None)],
)
def test_a_quota_of_the_user_s_own_replaces_the_setting(
    own: int | None, setting: int | None, limit: int | None
) -> None:
    assert choose_limit(own, setting) == limit
