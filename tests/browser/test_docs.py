"""The page /docs shows both APIs, and requests can be sent from it."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Error, FilePayload, Locator, Page

from deploy.client import Client
from tests.upload_requests import TINY_WAV

FILE: FilePayload = {"name": "hello.wav", "mimeType": "audio/wav", "buffer": TINY_WAV}


def open_operation(page: Page, name: str) -> Locator:
    operation = page.locator(f"#operations-{name}")
    operation.locator(".opblock-summary-control").click()
    return operation


def execute(operation: Locator) -> dict[str, Any]:
    """Presses Execute, and returns the response that the page shows."""
    operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table .response-col_description code").first
    response: dict[str, Any] = json.loads(shown.inner_text())
    return response


def test_a_reader_can_create_a_user_upload_a_wav_and_play_its_link_on_the_page(
    client: Client, page: Page
) -> None:
    hosts: set[str] = set()
    complaints: list[str] = []
    page.context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{client.http.base_url}/docs")

    user = execute(open_operation(page, "users-post_user"))
    page.get_by_role("button", name="Authorize").first.click()
    page.get_by_label("auth-bearer-value").fill(user["token"])
    page.get_by_role("button", name="Apply credentials").first.click()
    page.get_by_role("button", name="Close").first.click()
    assert execute(open_operation(page, "users-get_user"))["id"] == user["id"]

    # The page keeps the credentials, and sends the audio last even if the bitrate is chosen after it.
    page.locator("#select").select_option("/openapi/records.json")
    upload = open_operation(page, "records-post_record")
    upload.locator("input[type=file]").set_input_files(FILE)
    upload.locator("[data-property-name=bitrate_kbps] select").select_option("64")
    record = execute(upload)
    assert (record["user_id"], record["bitrate_kbps"]) == (user["id"], 64)

    upload.locator(".body-param-content-type select").select_option("audio/wav")
    upload.locator("input[type=file]").set_input_files(FILE)
    with page.expect_response("**/records") as bare:
        upload.get_by_role("button", name="Execute").click()
    assert bare.value.status == 201

    listen = open_operation(page, "records-get_record_audio")
    for name in ("id", "user"):
        value = record["id"] if name == "id" else record["user_id"]
        listen.locator(f"[data-param-name={name}] input").fill(value)
    listen.get_by_role("button", name="Execute").click()
    listen.locator("audio").wait_for()

    # The page loaded nothing from other hosts, and its Content-Security-Policy blocked nothing.
    assert hosts - {""} == {urlsplit(str(client.http.base_url)).netloc}
    assert not complaints

    page.goto(record["url"])
    page.wait_for_function("document.querySelector('video, audio')?.readyState >= 1")


def test_the_page_works_where_no_other_host_resolves(client: Client, page: Page) -> None:
    for host in ("localhost", "127.0.0.2", "unpkg.com"):
        # Each host gets its own tab: the error page may interrupt the next navigation in the same tab.
        with page.context.new_page() as tab, pytest.raises(Error, match="ERR_NAME_NOT_RESOLVED"):
            tab.goto(f"http://{host}:{client.http.base_url.port}/docs")
    page.goto(f"{client.http.base_url}/docs")
    page.locator("#operations-users-post_user").wait_for()


def test_a_problem_on_the_page_links_to_its_explanation(client: Client, page: Page) -> None:
    page.goto(f"{client.http.base_url}/docs")
    operation = open_operation(page, "users-get_user")
    with page.context.expect_page() as opened:
        operation.get_by_role("link", name="The credentials are missing or wrong").click()
    assert opened.value.get_by_role("heading").inner_text() == "The credentials are missing or wrong"
