"""A person sends recordings on the page `/`, and finds, plays, renames and deletes them there."""

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from deploy.client import Client
from tests.browser.people import Person, count_records
from tests.upload_requests import NOBODY, TINY_WAV
from tests.wavs import Wav, music

# 2.6 MB.
INTERVIEW = Wav().build(music(15))
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def russian(browser: Browser, base_url: str) -> Iterator[Person]:
    """Somebody who speaks Russian, and whose browser is a phone."""
    with browser.new_context(
        locale="ru-RU", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    ) as context:
        person = Person(context.new_page(), base_url)
        yield person
        assert not person.errors


def test_a_person_drops_files_watches_them_and_plays_and_seeks_the_records(person: Person) -> None:
    page = person.page
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    person.sign_up()
    person.look("empty")

    # Both are sent at once, and the page shows how far they are.
    with person.slow_network():
        person.drop(Interview=INTERVIEW, Rehearsal=INTERVIEW, Memo=TINY_WAV)
        for name in ("Interview", "Rehearsal"):
            expect(person.upload(name)).to_contain_text(re.compile(r"[1-9].* of .* · .*/s · .* left"))
        expect(person.upload("Memo")).to_contain_text("waiting for its turn")
        person.look("uploads")
    for title in ("Interview", "Rehearsal", "Memo"):
        expect(person.record(title)).to_be_visible()
    expect(page.locator(".upload")).to_have_count(0)

    # One plays at a time.
    interview, rehearsal = person.record("Interview"), person.record("Rehearsal")
    interview.get_by_role("button", name="Play: Interview").click()
    expect(interview.get_by_role("button", name="Pause: Interview")).to_be_visible()
    rehearsal.get_by_role("button", name="Play: Rehearsal").click()
    expect(interview.get_by_role("button", name="Play: Interview")).to_be_visible()
    slider = rehearsal.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    assert page.evaluate("navigator.mediaSession.metadata.title") == "Rehearsal"

    # The keyboard alone pauses and seeks, and a click seeks.
    slider.press(" ")
    expect(rehearsal.get_by_role("button", name="Play: Rehearsal")).to_be_visible()
    slider.press("Home")
    slider.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "0:05 of 0:15")
    slider.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "0:15 of 0:15")
    box = slider.bounding_box()
    assert box
    slider.click(position={"x": box["width"] * 0.7, "y": 10})
    expect(slider).to_have_attribute("aria-valuetext", re.compile("0:1[0-4] of 0:15"))
    person.look("records")
    assert hosts - {""} == {urlsplit(person.base_url).netloc}


def test_a_person_renames_finds_and_shares_records(person: Person) -> None:
    page = person.page
    person.sign_up()
    person.drop(Interview=TINY_WAV, Rehearsal=TINY_WAV, Memo=TINY_WAV)
    expect(page.locator(".record")).to_have_count(3)

    # What people write never becomes HTML.
    person.button("Rename: Interview").click()
    page.keyboard.type(MARKUP)
    page.keyboard.press("Enter")
    expect(person.record(MARKUP)).to_be_visible()
    expect(person.record(MARKUP).locator("img")).to_have_count(0)
    person.button(f"Rename: {MARKUP}").click()
    person.look("rename")
    page.keyboard.press("Escape")
    expect(person.record(MARKUP)).to_be_visible()

    search = page.get_by_role("searchbox")
    search.fill("REHEARS")
    expect(page.locator(".record")).to_have_count(1)
    search.fill("nothing like it")
    expect(page.get_by_text("No title has “nothing like it” in it.")).to_be_visible()
    search.fill("")
    expect(page.locator(".record")).to_have_count(3)

    person.button("Copy the link of: Rehearsal").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    with page.context.new_page() as other:
        link = page.evaluate("navigator.clipboard.readText()")
        other.goto(link)
        expect(other.locator("audio, video")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download: Rehearsal").click()
    assert download.value.suggested_filename == "Rehearsal.mp3"


def test_a_deletion_can_be_undone_for_a_while_and_then_stays(client: Client, person: Person) -> None:
    page = person.page
    user = person.sign_up()
    person.drop(Interview=TINY_WAV, Rehearsal=TINY_WAV, Memo=TINY_WAV)
    expect(page.locator(".record")).to_have_count(3)
    person.button("Delete: Rehearsal").press("Enter")
    expect(person.button("Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(person.record("Rehearsal")).to_be_visible()
    expect(person.button("Delete: Rehearsal")).to_be_focused()
    with page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        person.button("Delete: Memo").click()
    assert deleted.value.status == 204
    assert count_records(client, user) == 2

    # This tab stays signed in, until the person signs out.
    page.reload()
    expect(page.locator(".record")).to_have_count(2)
    person.button("Sign out").click()
    expect(person.button("Sign in")).to_be_visible()
    page.reload()
    expect(person.button("Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0


def test_everybody_can_use_the_message_with_undo(person: Person) -> None:
    person.sign_up()
    person.drop(Rehearsal=TINY_WAV)
    person.button("Delete: Rehearsal").press("Enter")
    expect(person.button("Undo")).to_be_focused()
    person.look("undo")
    person.button("Undo").click()
    expect(person.record("Rehearsal")).to_be_visible()


def test_the_page_remembers_a_user_on_this_device_only_if_it_is_asked(person: Person) -> None:
    person.sign_up(remember=False)
    with person.page.context.new_page() as tab:
        tab.goto(person.base_url)
        expect(tab.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    person.button("Sign out").click()
    person.sign_up(remember=True)
    with person.page.context.new_page() as tab:
        tab.goto(person.base_url)
        expect(tab.get_by_text("Nothing here yet")).to_be_visible()


def test_a_wrong_or_a_replaced_token_leads_to_the_first_view_with_a_sentence(
    client: Client, person: Person
) -> None:
    person.expected = {401}
    user = person.sign_up()
    renewed = client.http.post("/users/me/token", auth=(user["id"], user["token"])).raise_for_status().json()
    person.drop(Memo=TINY_WAV)
    expect(person.page.get_by_role("alert")).to_have_text(re.compile("token does not work any more"))
    person.look("signed-out")
    person.sign_in({**user, "token": NOBODY})
    expect(person.page.get_by_role("alert")).to_have_text("User id or token is wrong.")
    person.sign_in(user | {"token": renewed["token"]})
    expect(person.page.get_by_text("Nothing here yet")).to_be_visible()


def test_a_file_that_is_no_wav_is_not_sent_and_says_what_it_is(person: Person) -> None:
    person.sign_up()
    sent: list[str] = []
    person.page.on("request", lambda request: sent.append(request.method))
    person.drop(song=b"\xff\xfb\x90\x44" + bytes(1000), letter=b"Dear Ann, ...", empty=b"")
    expect(person.upload("song")).to_contain_text("a file of the kind MP3, not a WAV")
    expect(person.upload("letter")).to_contain_text("This is not a WAV. Save or export")
    expect(person.upload("empty")).to_contain_text("This file is empty")
    person.look("no-wav")
    person.button("Remove: song").click()
    expect(person.page.locator(".upload")).to_have_count(2)
    assert "POST" not in sent


def test_a_wav_that_the_service_refuses_shows_its_detail(person: Person) -> None:
    person.expected = {422}
    person.sign_up()
    person.drop(silent=Wav().build(music(0)))
    expect(person.upload("silent")).to_contain_text("The WAV is broken. Save it again, and send that.")
    expect(person.upload("silent").locator(".detail")).not_to_be_empty()
    person.look("refused")
    # The same file would be refused again.
    expect(person.upload("silent").get_by_role("button", name="Try again")).to_be_hidden()
    person.button("Remove: silent").click()
    expect(person.page.locator(".upload")).to_have_count(0)


def test_the_options_are_sent_with_the_upload(person: Person) -> None:
    person.sign_up()
    person.page.get_by_text("Title and quality").click()
    person.page.locator("#title").fill("Two takes")
    person.page.get_by_label("Quality").select_option("64 kbit/s")
    with person.page.expect_response("**/records?*bitrate_kbps=64") as response:
        person.drop(a=TINY_WAV, b=TINY_WAV)
    assert response.value.json()["bitrate_kbps"] == 64
    expect(person.record("Two takes 1")).to_be_visible()
    expect(person.record("Two takes 2")).to_be_visible()


def test_the_page_asks_before_it_closes_under_an_upload(person: Person) -> None:
    person.sign_up()
    with person.slow_network():
        person.drop(Interview=INTERVIEW)
        expect(person.upload("Interview")).to_contain_text("left")
        with person.page.expect_event("dialog") as asked:
            person.page.once("dialog", lambda dialog: dialog.dismiss())
            person.page.close(run_before_unload=True)
        assert asked.value.type == "beforeunload"


def test_an_upload_can_be_cancelled(client: Client, person: Person) -> None:
    user = person.sign_up()
    with person.slow_network():
        person.drop(Interview=INTERVIEW)
        expect(person.upload("Interview")).to_contain_text("left")
        # On a fast network again, the upload could end before the browser has broken it off.
        with person.page.expect_event("requestfailed"):
            person.button("Cancel: Interview").click()
        expect(person.page.locator(".upload")).to_have_count(0)
    person.drop(Memo=TINY_WAV)
    expect(person.record("Memo")).to_be_visible()
    assert count_records(client, user) == 1


def test_a_person_records_from_the_microphone(person: Person) -> None:
    person.sign_up()
    person.button("Record").click()
    page = person.page
    expect(page.get_by_role("timer")).to_have_text("0:01")
    # The fake microphone beeps once a second.
    expect(page.get_by_role("meter")).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    person.look("recording")
    person.button("Pause").click()
    expect(page.get_by_role("heading", name="Paused")).to_be_visible()
    person.button("Go on").click()
    person.button("Stop").click()
    person.button("Play: New recording").click()
    slider = page.get_by_role("slider", name="Position in: New recording")
    expect(slider).to_have_attribute("aria-valuenow", re.compile("[1-9]"))
    expect(page.locator("#recorder .clock")).to_have_text(re.compile("^0:0[1-9] / 0:0[1-9]$"))
    person.look("preview")
    page.locator("#recording-title").fill("Voice memo")
    with page.expect_response("**/records?*") as response:
        person.button("Send").click()
    assert (response.value.json()["sample_rate"], response.value.json()["channels"]) == (48000, 1)
    expect(person.record("Voice memo")).to_be_visible()
    person.button("Record").click()
    expect(page.get_by_role("timer")).to_have_text("0:01")
    page.locator("#recorder-controls").get_by_role("button", name="Discard").click()
    expect(page.locator("#recorder")).to_be_hidden()
    person.button("Undo").click()
    expect(person.button("Play: New recording")).to_be_focused()
    page.locator("#preview").get_by_role("button", name="Discard").click()
    expect(page.locator("#recorder")).to_be_hidden()
    # The next recording is another one, although the time for undoing is not over.
    person.button("Record").click()
    expect(page.get_by_role("timer")).to_have_text("0:01")
    expect(person.button("Undo")).to_have_count(0)
    person.button("Stop").click()
    expect(page.get_by_role("slider", name="Position in: New recording")).to_be_visible()
    page.locator("#preview").get_by_role("button", name="Discard").press("Enter")
    page.keyboard.press("Escape")
    expect(person.button("Record")).to_be_focused()


def test_the_page_speaks_russian_on_a_phone_and_changes_its_language_at_once(russian: Person) -> None:
    page = russian.page
    page.goto(russian.base_url)
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    page.get_by_label("Ваше имя").fill("Аня")
    russian.button("Начать").click()
    page.get_by_label("Обе строки сохранены").check()
    russian.button("Продолжить").click()
    page.locator("#files").set_input_files(
        {"name": "Разговор.wav", "mimeType": "audio/wav", "buffer": INTERVIEW}
    )
    row = russian.record("Разговор")
    expect(row).to_contain_text(re.compile(r"0:15 · [\d,]+ кБ · \d+ \S+ \d{4} г"))
    russian.look("russian")
    page.set_viewport_size({"width": 390, "height": 844})
    russian.button("English").tap()
    expect(row.get_by_role("button", name="Play: Разговор")).to_be_visible()
    expect(row).to_contain_text("241 kB")
    page.reload()
    expect(page.get_by_role("heading", name="Recordings", exact=True)).to_be_visible()


def upload_takes(client: Client, user: dict[str, str], count: int) -> None:
    """Makes so many records, `Take 1` first."""
    for number in range(1, count + 1):
        client.upload(BytesIO(TINY_WAV), None, user["token"], title=f"Take {number}")


def test_a_long_list_has_rows_only_near_the_view_and_changes_the_language_of_all(
    client: Client, person: Person
) -> None:
    page = person.page
    user = person.sign_up()
    upload_takes(client, user, 100)
    page.reload()
    for number in range(90, -1, -10):
        expect(person.record(f"Take {number + 10}")).to_be_attached()
        person.record(f"Take {number + 1}").scroll_into_view_if_needed()
    expect(person.record("Take 100")).to_have_count(0)
    assert page.locator(".record").count() <= 75
    height = page.evaluate("document.documentElement.scrollHeight")

    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    person.record("Take 1").get_by_role("button", name="Rename: Take 1", exact=True).click()
    page.evaluate("scrollTo(0, 0)")
    expect(person.record("Take 100")).to_be_visible()
    expect(person.record("Take 50")).to_have_count(0)
    # A row in which the person writes stays, wherever the page is scrolled.
    page.keyboard.type("Take one")
    page.keyboard.press("Enter")
    expect(person.record("Take one")).to_be_attached()
    assert page.evaluate("document.documentElement.scrollHeight") == height

    page.evaluate("scrollTo(0, 0)")
    expect(person.record("Take 100")).to_be_visible()
    person.button("Русский").click()
    expect(person.button("Слушать: Take 100")).to_be_visible()
    for number in range(100, 0, -10):
        person.record(f"Take {number}").scroll_into_view_if_needed()
    expect(person.button("Переименовать: Take 2")).to_be_visible()
    expect(person.record("Take 100")).to_have_count(0)
    page.locator(".languages button[value=en]").dispatch_event("click")
    page.evaluate("scrollTo(0, 0)")
    expect(person.button("Rename: Take 100")).to_be_visible()


def test_a_deleted_row_comes_back_in_the_language_of_the_page_and_leaves_no_gap_while_it_is_away(
    client: Client, person: Person
) -> None:
    page = person.page
    upload_takes(client, person.sign_up(), 26)
    page.reload()
    # The oldest one is alone on its page of the list.
    person.record("Take 2").scroll_into_view_if_needed()
    expect(page.locator("#record-rows ul")).to_have_count(2)
    person.button("Delete: Take 1").click()
    expect(page.locator("#record-rows ul")).to_have_count(1)
    page.locator("#languages button[value=ru]").dispatch_event("click")
    person.button("Вернуть").click()
    expect(person.button("Переименовать: Take 1")).to_be_attached()


def test_a_renaming_that_takes_long_does_not_pull_the_view_back(client: Client, person: Person) -> None:
    page = person.page
    upload_takes(client, person.sign_up(), 20)
    held: list[Route] = []
    # A route that begins on an open page misses a request that follows at once.
    page.route(
        "**/records/*",
        lambda route: held.append(route) if route.request.method == "PATCH" else route.fallback(),
    )
    page.reload()
    person.button("Rename: Take 20").click()
    with page.expect_request(lambda request: request.method == "PATCH"):
        page.keyboard.press("Enter")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(person.record("Take 1")).to_be_in_viewport()
    with page.expect_response(lambda response: response.request.method == "PATCH"):
        held[0].continue_()
    expect(person.record("Take 20").locator(".rename")).to_be_hidden()
    expect(person.record("Take 1")).to_be_in_viewport()


def test_the_first_view_works_at_twice_the_size_and_asks_for_a_sign_up_key(
    browser: Browser, person: Person
) -> None:
    page = person.page
    refuse_without_key(page)
    page.goto(person.base_url)
    expect(person.button("Start")).to_be_visible()
    person.look("welcome")
    # 1,280 pixels at 200 %.
    page.set_viewport_size({"width": 640, "height": 450})
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    person.expected = {401}
    page.get_by_label("Your name").fill("Ann")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("needs the sign-up key")
    page.get_by_label("Sign-up key").fill("secret")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Keep these two")).to_be_focused()
    person.look("credentials")
    person.button("Copy the token").click()
    expect(person.button("Copy the token")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#new-token").inner_text()


def refuse_without_key(page: Page) -> None:
    """Refuses sign-ups without a key, as a deployment with SIGNUP=key does."""
    problem = '{"type": "/problems/invalid-sign-up-key", "status": 401, "detail": "Send the key."}'

    def respond(route: Any) -> None:
        if route.request.headers.get("x-signup-key") == "secret":
            route.continue_()
        else:
            route.fulfill(status=401, content_type="application/problem+json", body=problem)

    page.route("**/users", respond)
