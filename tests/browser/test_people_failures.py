"""On the page `/`, an upload survives that the service goes, and a file that is too large is told so."""

import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Route, expect

from deploy.client import Client
from deploy.local.stack import Stack
from tests.browser.people import PATIENT, Person, count_records
from tests.stacks import temporary_stack
from tests.upload_requests import TINY_WAV
from tests.wavs import Wav, music

MAX_UPLOAD_BYTES = 3_000_000
# 2.6 MB.
INTERVIEW = Wav().build(music(15))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack that takes small files only."""
    with temporary_stack({"MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES)}, print) as stack:
        yield stack


@pytest.fixture(scope="session")
def base_url(stack: Stack) -> str:
    return stack.base_url


def test_an_upload_whose_service_dies_is_sent_again_by_itself_and_makes_one_record(
    stack: Stack, client: Client, person: Person
) -> None:
    # 409: the upload that broke off still holds the key. 503: the service is not back yet.
    person.expected = {409, 502, 503}
    user = person.sign_up()
    with person.slow_network():
        person.drop(Interview=INTERVIEW)
        expect(person.upload("Interview")).to_contain_text("left")
        os.kill(stack.pid("records"), signal.SIGKILL)
        expect(person.upload("Interview")).to_contain_text("Waxwing soon tries again by itself.")
        person.look("away")
    expect(person.record("Interview")).to_be_visible(timeout=PATIENT)
    assert count_records(client, user) == 1


def test_an_upload_whose_connection_breaks_is_sent_again_under_the_same_key(
    client: Client, person: Person
) -> None:
    keys: list[str] = []

    def break_once(route: Route) -> None:
        # Chromium itself repeats a request if a connection breaks that it has used before.
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.abort("connectionreset")
        else:
            route.continue_()

    person.page.route("**/records?title=*", break_once)
    user = person.sign_up()
    person.drop(Memo=TINY_WAV)
    expect(person.upload("Memo")).to_contain_text("The connection is broken. Waxwing soon tries again")
    expect(person.record("Memo")).to_be_visible(timeout=PATIENT)
    assert keys == [keys[0]] * 2
    assert count_records(client, user) == 1
    person.errors = [error for error in person.errors if "ERR_CONNECTION_RESET" not in error]


def test_a_file_that_is_too_large_is_told_so(person: Person) -> None:
    person.expected = {413}
    person.sign_up()
    person.drop(huge=TINY_WAV + bytes(MAX_UPLOAD_BYTES))
    expect(person.upload("huge")).to_contain_text("The file is too large.")
    expect(person.upload("huge").locator(".detail")).to_contain_text(str(MAX_UPLOAD_BYTES))
