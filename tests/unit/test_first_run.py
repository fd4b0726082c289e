"""The measured first run is the one that README.md describes."""

import re

import pytest

from tests import first_run


@pytest.mark.parametrize("way", first_run.WAYS.values(), ids=first_run.WAYS)
def test_each_measured_command_stands_in_the_readme(way: first_run.Way) -> None:
    for command in (*way.start, way.stop):
        assert f"`{command}`" in first_run.README or re.search(
            rf"^{re.escape(command)}$", first_run.README, re.M
        )


def test_the_three_curl_lines_create_a_user_upload_and_fetch_the_mp3() -> None:
    create, upload, fetch = first_run.CURL_LINES
    assert "/users" in create
    assert "$ID" in upload
    assert "$TOKEN" in upload
    assert "@hello.wav" in upload
    assert '"$URL" -o hello.mp3' in fetch


def test_a_stranger_has_the_network_of_this_machine_and_nothing_else() -> None:
    given = ["HTTPS_PROXY", "no_proxy", "SSL_CERT_FILE", "PIP_INDEX_URL", "GATEWAY_PORT", "DOCKER_HOST"]
    kept_back = ["HOME", "PYTHONPATH", "XDG_CACHE_HOME", "MINIO_BIN", "VIRTUAL_ENV", "SIGNUP_KEY"]
    assert [name for name in given + kept_back if first_run.INHERITED.fullmatch(name)] == given


def test_a_row_of_the_disk_has_the_sum_and_its_parts() -> None:
    assert first_run.sum_up({".venv": 10.4, "HOME": 2.0}) == ("on disk", "12 MB", ".venv 10, HOME 2")
