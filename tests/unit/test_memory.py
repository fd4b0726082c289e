"""The slots of an instance fit into the memory limit of its container."""

from pathlib import Path

import msgspec
import pytest

from common.settings import SettingsError
from records.memory import BASE_BYTES, MIB, fit_to_memory, needed_bytes, read_memory_limit, upload_bytes
from records.settings import Settings, StoreSettings
from records.storage import UPLOAD_PART_BYTES

DOCS = Path(__file__).parents[2] / "docs"
STORE = StoreSettings(s3_endpoint="http://localhost", s3_access_key="", s3_secret_key="")
SETTINGS = Settings(database_url="", store=STORE, encoder_threads=2)


def test_the_default_slots_fit_into_the_memory_that_compose_gives() -> None:
    compose = (Path(__file__).parents[2] / "docker-compose.yml").read_text()
    assert "mem_limit: ${RECORDS_MEMORY:-1600m}" in compose
    # On machines with many cores more audio waits for the encoders.
    for cores in (1, 2, 16):
        settings = msgspec.structs.replace(SETTINGS, encoder_threads=cores)
        assert needed_bytes(settings) <= 1600 * MIB
        assert fit_to_memory(settings, 1600 * MIB) == settings


def test_where_no_upload_can_keep_its_original_each_needs_two_upload_parts_less() -> None:
    never = msgspec.structs.replace(SETTINGS, keep_originals="never")
    assert needed_bytes(SETTINGS) - needed_bytes(never) >= SETTINGS.max_uploads * 2 * UPLOAD_PART_BYTES
    assert fit_to_memory(never, 512 * MIB).max_uploads > fit_to_memory(SETTINGS, 512 * MIB).max_uploads


def test_the_docs_say_how_much_memory_is_needed_and_how_many_uploads_fit() -> None:
    never = msgspec.structs.replace(SETTINGS, keep_originals="never")
    empty = needed_bytes(msgspec.structs.replace(SETTINGS, max_uploads=0)) / MIB
    each, each_never = (upload_bytes(settings) / MIB for settings in (SETTINGS, never))
    limits = [512, 768, 1024, 1600]
    rows = [
        f"{empty:.0f} MiB for the instance, and {each} MiB for each upload ({each_never} MiB with",
        "".join(f"| {limit}m " for limit in limits),
        *(
            "".join(f"| {fit_to_memory(settings, limit * MIB).max_uploads} " for limit in limits)
            for settings in (SETTINGS, never)
        ),
    ]
    run = (DOCS / "run.md").read_text(encoding="utf-8")
    assert [row for row in rows if row not in run] == []
    at_most = f"{SETTINGS.max_uploads} uploads at once need {needed_bytes(SETTINGS) / MIB:,.0f} MiB at most"
    assert at_most in (DOCS / "kubernetes.md").read_text(encoding="utf-8")


def test_without_a_limit_nothing_changes() -> None:
    assert fit_to_memory(SETTINGS, None) == SETTINGS


@pytest.mark.parametrize("limit", [400 * MIB, 512 * MIB, 600 * MIB])
def test_with_less_memory_there_are_as_many_slots_as_fit(limit: int) -> None:
    fitted = fit_to_memory(SETTINGS, limit)
    assert 1 <= fitted.max_uploads < SETTINGS.max_uploads
    assert needed_bytes(fitted) <= limit
    one_more = msgspec.structs.replace(fitted, max_uploads=fitted.max_uploads + 1)
    assert needed_bytes(one_more) > limit


def test_too_little_memory_for_one_upload_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r"even one upload needs \d+ MiB: raise the limit, or lower MAX_"):
        fit_to_memory(SETTINGS, BASE_BYTES)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_limit_of_a_container_is_read_with_both_versions_of_control_groups(
    tmp_path: Path, name: str
) -> None:
    assert read_memory_limit(tmp_path) is None
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("max\n")
    assert read_memory_limit(tmp_path) is None
    file.write_text("536870912\n")
    assert read_memory_limit(tmp_path) == 512 * MIB


def test_the_number_that_cgroup_v1_says_without_a_limit_changes_nothing() -> None:
    # What cgroup v1 says where there is no limit.
    assert fit_to_memory(SETTINGS, 9_223_372_036_854_771_712) == SETTINGS
