"""The page `/` stays of use when the browser, the files, the network or the person do what nobody expects."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Response, expect

from deploy.client import Client
from tests.browser.people import Person, count_records
from tests.upload_requests import NOBODY, TINY_WAV
from tests.wavs import Wav, music

# 2.6 MB.
INTERVIEW = Wav().build(music(15))
FORBIDDEN = """
    for (const storage of ["localStorage", "sessionStorage"]) {
        Object.defineProperty(window, storage, { get() { throw new DOMException("", "SecurityError"); } });
    }
"""
FULL = 'Storage.prototype.setItem = () => { throw new DOMException("", "QuotaExceededError"); };'


@pytest.mark.parametrize("storage", [FORBIDDEN, FULL])
def test_the_page_works_in_a_browser_that_stores_nothing(person: Person, storage: str) -> None:
    person.page.add_init_script(storage)
    person.sign_up(remember=True)
    person.button("Русский").click()
    expect(person.page.get_by_text("Здесь пока пусто")).to_be_visible()
    person.button("Выйти").click()
    expect(person.button("Войти")).to_be_visible()


def test_a_folder_among_files_is_told_so_and_the_files_are_sent(person: Person, tmp_path: Any) -> None:
    person.sign_up()
    (tmp_path / "Album").mkdir()
    (tmp_path / "Memo.wav").write_bytes(TINY_WAV)
    box = person.page.locator("#drop").bounding_box()
    assert box
    files = [str(tmp_path / "Album"), str(tmp_path / "Memo.wav")]
    drag = {
        "x": box["x"] + 9,
        "y": box["y"] + 9,
        "data": {"items": [], "files": files, "dragOperationsMask": 1},
    }
    mouse = person.page.context.new_cdp_session(person.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, **drag})
    expect(person.upload("Album")).to_contain_text(
        "The browser cannot read this. Choose files, not a folder."
    )
    expect(person.record("Memo")).to_be_visible()


@pytest.fixture
def phone(browser: Browser, base_url: str) -> Any:
    """Somebody with a small phone."""
    with browser.new_context(
        locale="en-GB", viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True
    ) as context:
        person = Person(context.new_page(), base_url)
        yield person
        assert not person.errors


def test_a_finger_plays_a_waveform_by_a_tap_but_not_by_scrolling_the_page(phone: Person) -> None:
    phone.sign_up()
    phone.drop(Interview=INTERVIEW, Rehearsal=INTERVIEW, Memo=INTERVIEW)
    expect(phone.page.locator(".record")).to_have_count(3)
    wave = phone.record("Interview").get_by_role("slider")
    wave.scroll_into_view_if_needed()
    phone.page.evaluate("addEventListener('scroll', () => document.body.setAttribute('data-scrolled', ''))")
    scroll_by_touch(phone.page, wave.bounding_box())
    expect(phone.page.locator("body")).to_have_attribute("data-scrolled", "")
    expect(wave).to_have_attribute("aria-valuenow", "0")
    wave.tap()
    expect(phone.button("Pause: Interview")).to_be_visible()


def scroll_by_touch(page: Page, box: Any) -> None:
    """Moves a finger down from the middle of a box."""
    finger = page.context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, moved in [("touchStart", 0), *(("touchMove", step) for step in range(20, 220, 20))]:
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y + moved}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_record_that_did_not_play_plays_when_the_connection_is_back(person: Person) -> None:
    person.page.route("**/record?*", lambda route: route.abort("internetdisconnected"))
    person.sign_up()
    person.drop(Memo=INTERVIEW)
    memo = person.record("Memo")
    expect(memo).to_be_visible()
    person.button("Play: Memo").click()
    expect(memo.get_by_role("alert")).to_contain_text("does not play now")
    expect(person.button("Play: Memo")).to_be_visible()
    person.page.unroute_all()
    person.button("Play: Memo").click()
    expect(memo.get_by_role("slider")).to_have_attribute("aria-valuenow", "1")
    expect(memo.get_by_role("alert")).to_be_hidden()
    person.errors = [error for error in person.errors if "ERR_INTERNET_DISCONNECTED" not in error]


BREAK = """() => {
    window.addModule = AudioWorklet.prototype.addModule;
    AudioWorklet.prototype.addModule = async () => { throw new DOMException("", "AbortError"); };
}"""
MEND = "() => { AudioWorklet.prototype.addModule = window.addModule; }"
SLOW_TO_ASK = """
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.answers = [];
    navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => answers.push(resolve));
        return ask(wanted);
    };
    const stop = MediaStreamTrack.prototype.stop;
    let stopped = 0;
    MediaStreamTrack.prototype.stop = function () {
        stop.call(this);
        document.documentElement.dataset.stopped = String(++stopped);
    };
"""


def test_the_microphone_is_let_go_whatever_happens_while_the_browser_asks(person: Person) -> None:
    page = person.page
    page.add_init_script(SLOW_TO_ASK)
    person.sign_up()
    # A second click asks no second time.
    person.button("Record").click()
    person.button("Record").click()
    page.evaluate("answers.forEach((answer) => answer())")
    assert page.evaluate("answers.length") == 1
    person.button("Stop").click()
    stopped = page.locator("html")
    expect(stopped).to_have_attribute("data-stopped", "1")
    page.locator("#preview").get_by_role("button", name="Discard").click()
    # The file that records does not come.
    page.evaluate(BREAK)
    person.button("Record").click()
    page.evaluate("answers.at(-1)()")
    expect(page.locator("#recorder-problem")).to_have_text("The connection is broken.")
    expect(stopped).to_have_attribute("data-stopped", "2")
    page.evaluate(MEND)
    # Somebody signs out before the answer.
    person.button("Record").click()
    person.button("Sign out").click()
    page.evaluate("answers.at(-1)()")
    expect(stopped).to_have_attribute("data-stopped", "3")


def test_a_deleted_record_stays_away_from_a_search_and_comes_back_by_undo(person: Person) -> None:
    person.sign_up()
    person.drop(Interview=TINY_WAV, Rehearsal=TINY_WAV, Memo=TINY_WAV)
    expect(person.page.locator(".record")).to_have_count(3)
    person.button("Delete: Rehearsal").click()
    search = person.page.get_by_role("searchbox")
    search.fill("rehearsal")
    expect(person.page.get_by_text("No title has “rehearsal” in it.")).to_be_visible()
    person.button("Undo").click()
    expect(person.record("Rehearsal")).to_be_visible()
    search.fill("")
    titles = person.page.locator(".record .title")
    expect(titles).to_have_count(3)
    # Rows come back to their places, although their neighbours have gone, too.
    [first, second, third] = titles.all_inner_texts()
    for title in (second, third, first):
        person.button(f"Delete: {title}").click()
    person.button("Undo").click()
    expect(titles).to_have_text([first, second, third])


def test_a_record_that_another_tab_has_deleted_can_be_deleted_and_the_focus_stays_near(
    client: Client, person: Person
) -> None:
    person.expected = {404}
    user = person.sign_up()
    person.drop(Interview=TINY_WAV)
    expect(person.record("Interview")).to_be_visible()
    person.drop(Memo=TINY_WAV)
    expect(person.record("Memo")).to_be_visible()
    records = (
        client.http.get("/records", auth=(user["id"], user["token"])).raise_for_status().json()["records"]
    )
    client.http.delete(f"/records/{records[0]['id']}", auth=(user["id"], user["token"])).raise_for_status()
    with person.page.expect_response(lambda response: response.request.method == "DELETE") as deleted:
        person.button("Delete: Memo").press("Enter")
        expect(person.button("Undo")).to_be_focused()
        person.page.keyboard.press("Escape")
    assert deleted.value.status == 404
    expect(person.button("Play: Interview")).to_be_focused()
    expect(person.record("Memo")).to_have_count(0)
    expect(person.page.locator("#records-problem")).to_be_hidden()


def test_a_list_that_did_not_come_comes_by_itself_when_the_connection_is_back(person: Person) -> None:
    person.sign_up()
    person.drop(Memo=TINY_WAV)
    expect(person.record("Memo")).to_be_visible()
    person.page.route("**/records?limit=*", lambda route: route.abort("internetdisconnected"))
    person.page.reload()
    problem = person.page.locator("#records-problem")
    expect(problem).to_have_text("The connection is broken. Waxwing soon tries again by itself.")
    expect(person.page.get_by_text("Nothing here yet")).to_be_hidden()
    person.page.unroute_all()
    expect(person.record("Memo")).to_be_visible()
    expect(problem).to_be_hidden()
    person.errors = [error for error in person.errors if "ERR_INTERNET_DISCONNECTED" not in error]


def test_the_name_of_any_file_becomes_a_title_that_the_service_takes(phone: Person) -> None:
    phone.sign_up()
    long = "Very long " * 24
    with phone.slow_network():
        phone.drop(**{long: INTERVIEW, "left\u202eright\tname": TINY_WAV, "e\u0301" * 150: TINY_WAV})
        # The name leaves the buttons room.
        cancel = phone.upload("Very long").get_by_role("button", name="Cancel")
        expect(cancel).to_be_visible()
        box = cancel.bounding_box()
        assert box
        assert box["height"] < 50
        assert box["width"] > 60
    expect(phone.record(long[:200].strip())).to_be_visible()
    expect(phone.record("left right name")).to_be_visible()
    expect(phone.record("é" * 150)).to_be_visible()


def test_the_first_view_says_beside_the_button_what_is_wrong(phone: Person) -> None:
    phone.expected = {401}
    phone.page.goto(phone.base_url)
    requests: list[str] = []
    phone.page.on("request", lambda request: requests.append(request.method))
    # White space is no name.
    phone.page.get_by_label("Your name").fill("  ")
    phone.button("Start").tap()
    expect(phone.page.get_by_label("Your name")).to_have_value("")
    assert "POST" not in requests
    phone.sign_in({"id": NOBODY, "token": NOBODY})
    expect(phone.page.get_by_role("alert")).to_have_text("User id or token is wrong.")
    expect(phone.page.get_by_role("alert")).to_be_in_viewport()
    # The whole head is one line.
    phone.sign_up()
    heights = [phone.page.locator(place).bounding_box() for place in (".brand", "#sign-out", "#languages")]
    assert len({round((box["y"] + box["height"] / 2) / 10) for box in heights if box}) == 1


def test_forced_colours_show_borders_and_progress(person: Person) -> None:
    person.sign_up()
    person.page.emulate_media(forced_colors="active")
    with person.slow_network():
        person.drop(Interview=INTERVIEW)
        progress = person.page.get_by_role("progressbar")
        expect(progress).to_be_visible()
        expect(progress).to_have_css("forced-color-adjust", "none")
        expect(person.button("Choose files")).to_have_css("border-top-style", "solid")


def test_a_file_that_misses_the_first_view_does_not_take_its_place(person: Person) -> None:
    person.page.goto(person.base_url)
    expect(person.button("Start")).to_be_visible()
    is_taken = "!document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true }))"
    assert person.page.evaluate(is_taken)


def test_the_page_asks_before_a_token_that_nobody_has_saved_is_gone(person: Person) -> None:
    page = person.page
    page.goto(person.base_url)
    page.get_by_label("Your name").fill("Ann")
    person.button("Start").click()
    expect(page.get_by_role("heading", name="Keep these two")).to_be_focused()
    with page.expect_event("dialog") as asked:
        page.once("dialog", lambda dialog: dialog.dismiss())
        page.close(run_before_unload=True)
    assert asked.value.type == "beforeunload"
    # Once it is saved, nothing asks.
    page.get_by_label("I have saved both").check()
    person.button("Continue").click()
    expect(page.get_by_role("heading", name="Your recordings")).to_be_focused()
    page.reload()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()


def test_the_page_asks_before_somebody_signs_out_during_an_upload(person: Person) -> None:
    page = person.page
    person.sign_up()
    with person.slow_network():
        person.drop(Interview=INTERVIEW)
        expect(person.upload("Interview")).to_contain_text("left")
        page.once("dialog", lambda dialog: dialog.dismiss())
        with page.expect_event("dialog") as asked:
            person.button("Sign out").click()
        assert asked.value.message == "Not everything is sent yet. Sign out all the same, and lose it?"
        expect(person.upload("Interview")).to_contain_text("left")
        page.once("dialog", lambda dialog: dialog.accept())
        person.button("Sign out").click()
        expect(page.get_by_role("heading", name="A recording in, a link out")).to_be_focused()


def record(person: Person, title: str) -> None:
    """Records a second from the microphone, and gives it a title."""
    person.button("Record").click()
    expect(person.page.locator("#recorder-time")).to_have_text("0:01")
    person.button("Stop").click()
    person.page.locator("#recording-title").fill(title)


def is_asked_at_close(page: Page) -> bool:
    """Closes the tab, and says whether the page asks first. It then stays."""
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.once("dialog", stay)
    page.close(run_before_unload=True)
    page.wait_for_timeout(500)
    return asked == ["beforeunload"]


def test_a_recording_that_cannot_be_sent_is_kept_until_it_is_saved(client: Client, person: Person) -> None:
    person.expected = {401}
    page = person.page
    user = person.sign_up()
    record(person, "Voice memo")
    client.http.post("/users/me/token", auth=(user["id"], user["token"])).raise_for_status()
    person.button("Send").click()
    row = person.upload("Voice memo")
    expect(row).to_contain_text("User id or token is wrong.")
    expect(page.locator("#recorder-problem")).to_have_text(
        "Your token does not work any more. Save your recording; then sign out, and in with the new token."
    )
    expect(row.get_by_role("button", name="Try again")).to_be_hidden()
    person.look("unsent")
    assert is_asked_at_close(page)
    with page.expect_download() as download:
        person.button("Save the WAV: Voice memo").click()
    assert download.value.suggested_filename == "Voice memo.wav"
    octets = Path(download.value.path()).read_bytes()
    assert octets.startswith(b"RIFF")
    assert len(octets) > 48_000 * 2
    # Once it is saved, nothing asks.
    person.button("Sign out").click()
    expect(page.get_by_role("heading", name="A recording in, a link out")).to_be_focused()
    expect(page.locator("#recorder-problem")).to_be_hidden()


def test_a_recording_under_way_outlives_the_token(client: Client, person: Person) -> None:
    person.expected = {401}
    user = person.sign_up()
    record(person, "Voice memo")
    client.http.post("/users/me/token", auth=(user["id"], user["token"])).raise_for_status()
    person.drop(Memo=TINY_WAV)
    expect(person.upload("Memo")).to_contain_text("User id or token is wrong.")
    expect(person.upload("Memo").get_by_role("button", name="Save the WAV")).to_be_hidden()
    expect(person.button("Send")).to_be_visible()
    expect(person.page.locator("#recorder-problem")).to_contain_text("Save your recording")


def test_a_wav_that_ended_early_says_so(person: Person) -> None:
    person.sign_up()
    person.drop(Interview=INTERVIEW[:1_000_000], Memo=TINY_WAV)
    expect(person.record("Interview").locator(".facts")).to_contain_text("The WAV ended early")
    expect(person.record("Memo").locator(".facts")).not_to_contain_text("early", use_inner_text=True)
    person.look("ended-early")
    person.button("Русский").click()
    expect(person.record("Interview").locator(".facts")).to_contain_text("WAV обрывается")


def test_one_undo_brings_all_back_and_a_copied_link_does_not_end_it(client: Client, person: Person) -> None:
    page = person.page
    user = person.sign_up()
    person.drop(Interview=TINY_WAV, Rehearsal=TINY_WAV, Memo=TINY_WAV)
    titles = page.locator(".record .title")
    expect(titles).to_have_count(3)
    before = titles.all_inner_texts()
    person.button("Delete: Interview").press("Enter")
    expect(page.get_by_text("“Interview” is deleted")).to_be_visible()
    person.button("Delete: Memo").click()
    expect(page.get_by_text("2 recordings are deleted")).to_be_visible()
    person.button("Copy the link of: Rehearsal").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    person.button("Undo").focus()
    person.look("deleted-and-copied")
    person.button("Undo").click()
    expect(titles).to_have_text(before)
    assert count_records(client, user) == 3
    # Without it, all of them go.
    gone: list[int] = []

    def keep(response: Response) -> None:
        if response.request.method == "DELETE":
            gone.append(response.status)

    page.on("response", keep)
    with page.expect_response(lambda _: len(gone) == 2):
        person.button("Delete: Interview").press("Enter")
        person.button("Delete: Memo").click()
        expect(page.get_by_text("2 recordings are deleted")).to_be_visible()
        expect(page.get_by_text("2 recordings are deleted")).to_have_count(0)
    assert gone == [204, 204]
    assert count_records(client, user) == 1


def test_an_undo_waits_for_the_keyboard_and_the_pointer(person: Person) -> None:
    page = person.page
    # Five seconds pass at once.
    page.add_init_script(
        "const wait = setTimeout; setTimeout = (act, ms) => wait(act, ms === 5000 ? 200 : ms);"
    )
    person.sign_up()
    person.drop(Interview=TINY_WAV)
    expect(person.record("Interview")).to_be_visible()
    person.drop(Memo=TINY_WAV)
    expect(person.record("Memo")).to_be_visible()
    undo = person.button("Undo")
    person.button("Delete: Memo").press("Enter")
    expect(undo).to_be_focused()
    page.wait_for_timeout(1000)
    expect(undo).to_be_focused()
    undo.hover()
    # Tab goes on where the record was, and the pointer still is on the message.
    page.keyboard.press("Tab")
    expect(person.button("Play: Interview")).to_be_focused()
    page.wait_for_timeout(1000)
    expect(undo).to_be_visible()
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.mouse.move(5, 5)
    expect(undo).to_have_count(0)
    # Escape does not wait.
    person.button("Delete: Interview").press("Enter")
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_be_focused()


@pytest.mark.parametrize(
    ("key", "rubbish"),
    [
        ("waxwing.language", "xx"),
        ("waxwing.language", "toString"),
        ("waxwing.session", '{"id": "'),
        ("waxwing.session", "null"),
        ("waxwing.session", '{"id": 7}'),
    ],
)
def test_rubbish_in_the_storage_leaves_the_first_view(person: Person, key: str, rubbish: str) -> None:
    person.page.add_init_script(f"localStorage.setItem({key!r}, {rubbish!r});")
    person.page.goto(person.base_url)
    expect(person.button("Start")).to_be_visible()


def test_an_upload_during_a_search_shows_only_if_it_matches(person: Person) -> None:
    page = person.page
    person.sign_up()
    person.drop(Interview=TINY_WAV)
    expect(person.record("Interview")).to_be_visible()
    search = page.get_by_role("searchbox")
    search.fill("inter")
    person.drop(Memo=TINY_WAV)
    expect(page.locator("#toast")).to_have_text("Memo is ready")
    expect(page.locator(".record")).to_have_count(1)
    person.drop(Winter=TINY_WAV)
    expect(person.record("Winter")).to_be_visible()
    expect(page.locator(".record")).to_have_count(2)
    search.fill("")
    expect(page.locator(".record")).to_have_count(3)


def test_a_playing_record_shows_where_it_is(person: Person) -> None:
    person.sign_up()
    person.drop(Interview=INTERVIEW, Memo=TINY_WAV)
    facts = person.record("Interview").locator(".facts")
    expect(facts).to_have_text(re.compile("^0:15 ·"), use_inner_text=True)
    # The list does not jump.
    person.page.set_viewport_size({"width": 390, "height": 844})
    height = "(element) => element.clientHeight"
    before = facts.evaluate(height)
    person.button("Play: Interview").click()
    expect(facts).to_have_text(re.compile("^0:0[1-9] / 0:15 ·"), use_inner_text=True)
    assert facts.evaluate(height) == before
    person.record("Interview").get_by_role("slider").press("End")
    expect(facts).to_have_text(re.compile("^0:15 / 0:15 ·"), use_inner_text=True)
    person.button("Play: Memo").click()
    expect(facts).to_have_text(re.compile("^0:15 ·"), use_inner_text=True)


def test_who_signs_out_in_one_tab_is_signed_out_in_the_others(person: Person) -> None:
    page = person.page
    person.sign_up(remember=True)
    with page.context.new_page() as tab:
        tab.goto(person.base_url)
        expect(tab.get_by_text("Nothing here yet")).to_be_visible()
        person.button("Sign out").click()
        expect(tab.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    # A tab with a session of its own stays.
    person.sign_up(remember=False)
    with page.context.new_page() as tab:
        other = Person(tab, person.base_url)
        other.sign_up("Ben", remember=True)
        other.button("Sign out").click()
        expect(other.button("Sign in")).to_be_visible()
    expect(page.get_by_text("Nothing here yet")).to_be_visible()
    # A recording that is not sent yet stays, whatever another tab does.
    person.button("Sign out").click()
    person.sign_up(remember=True)
    record(person, "Voice memo")
    with page.context.new_page() as tab:
        tab.goto(person.base_url)
        tab.get_by_role("button", name="Sign out", exact=True).click()
        expect(tab.get_by_role("button", name="Sign in", exact=True)).to_be_visible()
    expect(page.locator("#recorder-problem")).to_have_text(
        "You have signed out in another tab. Send your recording first; then sign out here, too."
    )
    person.button("Send").click()
    expect(person.record("Voice memo")).to_be_visible()
