"""Who may sign up: the setting SIGNUP, its default, and the key."""

import json
import stat
from pathlib import Path

import pytest
from litestar.testing import TestClient

from common.host_names import choose_sign_up
from common.settings import SettingsError, load
from deploy.local.stack import Stack
from deploy.setup import SetupSettings, refuse_laptop_secrets
from users.app import create_app
from users.settings import Settings

DATABASE = {"DATABASE_URL": "postgresql://nobody@localhost/none"}
KEY = "a-key-of-its-own"


@pytest.mark.parametrize(
    ("public_url", "allowed_hosts", "expected"),
    [
        ("", "", "open"),
        ("http://localhost:8080", "waxwing.localhost, 127.0.0.1", "open"),
        ("https://music.example", "", "key"),
        ("", "localhost, music.example", "key"),
        ("http://192.0.2.1", "", "key"),
    ],
)
def test_without_a_setting_a_public_host_means_that_a_sign_up_needs_the_key(
    public_url: str, allowed_hosts: str, expected: str
) -> None:
    assert choose_sign_up(None, public_url, allowed_hosts) == expected
    assert choose_sign_up("closed", public_url, allowed_hosts) == "closed"


@pytest.mark.parametrize("demands_key", [{"SIGNUP": "key"}, {"ALLOWED_HOSTS": "music.example"}])
def test_the_service_does_not_start_without_the_key_that_a_sign_up_needs(demands_key: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"^SIGNUP_KEY is not set"):
        load(Settings, {**DATABASE, **demands_key})
    assert load(Settings, {**DATABASE, **demands_key, "SIGNUP_KEY": KEY}).sign_up == "key"
    assert load(Settings, {**DATABASE, **demands_key, "SIGNUP": "open"}).sign_up == "open"


@pytest.mark.parametrize(
    ("name", "value"), [("SIGNUP", "nobody"), ("SIGNUP_KEY", "short"), ("SIGNUP_KEY", "a b c d e")]
)
def test_a_wrong_setting_of_the_sign_up_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as rejected:
        load(Settings, {**DATABASE, "SIGNUP": "key", "SIGNUP_KEY": KEY, name: value})
    assert name != "SIGNUP_KEY" or value not in str(rejected.value)


SETUP = {
    **DATABASE,
    "S3_ENDPOINT": "http://localhost:9000",
    **dict.fromkeys(("S3_ACCESS_KEY", "S3_SECRET_KEY", "POSTGRES_PASSWORD"), "own"),
    **dict.fromkeys(("USERS_DATABASE_PASSWORD", "RECORDS_DATABASE_PASSWORD"), "own"),
    "SIGNUP_KEY": "laptop-signup",
    "PUBLIC_URL": "https://music.example",
}


def test_the_set_up_refuses_the_default_key_with_a_public_host_if_a_sign_up_needs_it() -> None:
    for chosen in ({}, {"SIGNUP": "key"}):
        with pytest.raises(SettingsError, match=r"music\.example .* SIGNUP_KEY still has the default"):
            refuse_laptop_secrets(load(SetupSettings, {**SETUP, **chosen}))
    for chosen in ({"SIGNUP": "open"}, {"SIGNUP": "closed"}, {"SIGNUP_KEY": KEY}, {"PUBLIC_URL": ""}):
        refuse_laptop_secrets(load(SetupSettings, {**SETUP, **chosen}))


@pytest.mark.parametrize(
    ("headers", "status", "name"),
    [
        ([], 401, "invalid-sign-up-key"),
        ([("X-Signup-Key", "")], 401, "invalid-sign-up-key"),
        ([("X-Signup-Key", KEY + "x")], 401, "invalid-sign-up-key"),
        ([("X-Signup-Key", "ä")], 401, "invalid-sign-up-key"),
        ([("X-Signup-Key", "wrong"), ("Authorization", f"Bearer {KEY}")], 401, "invalid-sign-up-key"),
        ([("Authorization", f"Basic {KEY}")], 401, "invalid-sign-up-key"),
        ([("Authorization", "Bearer wrong")], 401, "invalid-sign-up-key"),
        # With the key, the service reads the body.
        ([("X-Signup-Key", KEY)], 415, "unsupported-media-type"),
        (
            [("X-Signup-Key", KEY), ("Authorization", "Bearer somebody's token")],
            415,
            "unsupported-media-type",
        ),
        ([("Authorization", f"bearer {KEY}")], 415, "unsupported-media-type"),
    ],
)
def test_a_sign_up_needs_the_key_before_its_body_is_read(
    headers: list[tuple[str, str]], status: int, name: str
) -> None:
    app = create_app(load(Settings, {**DATABASE, "SIGNUP": "key", "SIGNUP_KEY": KEY}))
    raw = [("Host", "localhost"), *headers]
    with TestClient(app) as client:
        response = client.post("/users", headers={n.encode(): v.encode("latin-1") for n, v in raw})
    assert (response.status_code, response.json()["type"]) == (status, f"/problems/{name}")
    assert response.headers.get("WWW-Authenticate") == ('Bearer realm="waxwing"' if status == 401 else None)
    assert KEY not in response.text


def test_an_upgrade_adds_the_key_to_the_secrets_of_a_local_stack(tmp_path: Path) -> None:
    old = dict.fromkeys(("postgres", "users", "records", "minio", "s3_access_key", "s3_secret_key"), "old")
    file = tmp_path / "secrets.json"
    file.write_text(json.dumps(old))
    secrets = Stack(tmp_path).secrets
    assert secrets == {**old, "signup_key": secrets["signup_key"]}
    assert len(secrets["signup_key"]) == 32
    assert Stack(tmp_path).secrets == secrets
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Stack(tmp_path, settings={"SIGNUP_KEY": KEY}).signup_key == KEY
