"""Settings come from the environment, and what is wrong with them is said by name."""

from pathlib import Path

import pytest

from common.settings import ServiceSettings, SettingsError, load
from records.settings import Settings, SetupSettings
from users.settings import Settings as UsersSettings

ENOUGH = {
    "DATABASE_URL": "postgresql://somebody@localhost/waxwing",
    "S3_ENDPOINT": "http://localhost:9000",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
}


def test_what_is_enough_is_enough_and_the_rest_has_defaults() -> None:
    settings = load(Settings, ENOUGH)
    assert settings.store.s3_bucket == "records"
    assert settings.downloads == "accel"
    assert settings.max_upload_bytes == 4 * 1024**3
    assert settings.max_duration_seconds == 86400
    assert settings.encoder_threads >= 1
    assert load(UsersSettings, ENOUGH).port == 8000


@pytest.mark.parametrize("name", sorted(ENOUGH))
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is not set"):
        load(Settings, {key: value for key, value in ENOUGH.items() if key != name})


@pytest.mark.parametrize("name", sorted(ENOUGH))
def test_an_empty_setting_is_a_missing_one(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is not set"):
        load(Settings, {**ENOUGH, name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("MAX_UPLOADS", "0"),
        ("MAX_UPLOADS", "-1"),
        ("MAX_UPLOAD_BYTES", "4G"),
        ("DEFAULT_BITRATE_KBPS", "100"),
        ("MIN_BITRATE_KBPS", "0"),
        ("MAX_BITRATE_KBPS", "high"),
        ("MAX_HELD_BYTES", "1.5"),
        ("LEASE_SECONDS", "0"),
        ("ENCODER_THREADS", "many"),
        ("DOWNLOADS", "nginx"),
        ("S3_ENDPOINT", "localhost:9000"),
        ("S3_ENDPOINT", "http://localhost:9000/bucket"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        load(Settings, {**ENOUGH, name: value})


def test_a_number_is_read_as_a_number() -> None:
    settings = load(Settings, {**ENOUGH, "PORT": "8001", "MAX_UPLOADS": "7"})
    assert (settings.port, settings.max_uploads) == (8001, 7)


@pytest.mark.parametrize("range_name", [("MAX_BITRATE_KBPS", "112"), ("MIN_BITRATE_KBPS", "160")])
def test_a_default_bitrate_that_could_not_be_asked_for_is_refused(range_name: tuple[str, str]) -> None:
    name, value = range_name
    with pytest.raises(SettingsError, match=rf"^DEFAULT_BITRATE_KBPS: 128 .*{name} \({value}\)"):
        load(Settings, {**ENOUGH, name: value})
    settings = load(Settings, {**ENOUGH, name: value, "DEFAULT_BITRATE_KBPS": value})
    assert settings.default_bitrate_kbps == int(value)


def test_a_setting_may_come_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret word\n")
    settings = load(Settings, {**ENOUGH, "DATABASE_PASSWORD_FILE": str(file)})
    assert settings.database_password == "secret word"


def test_a_required_setting_may_come_from_a_file_also_in_a_nested_struct(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from file")
    environment = {name: value for name, value in ENOUGH.items() if name != "S3_SECRET_KEY"}
    settings = load(Settings, {**environment, "S3_SECRET_KEY_FILE": str(file)})
    assert settings.store.s3_secret_key == "from file"


def test_a_setting_and_its_file_at_once_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD and DATABASE_PASSWORD_FILE are both set"):
        load(Settings, {**ENOUGH, "DATABASE_PASSWORD": "other", "DATABASE_PASSWORD_FILE": str(file)})


def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD_FILE: .*absent"):
        load(Settings, {**ENOUGH, "DATABASE_PASSWORD_FILE": str(tmp_path / "absent")})


def test_a_file_that_is_empty_is_a_missing_setting(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    environment = {name: value for name, value in ENOUGH.items() if name != "S3_SECRET_KEY"}
    with pytest.raises(SettingsError, match=r"^S3_SECRET_KEY is not set"):
        load(Settings, {**environment, "S3_SECRET_KEY_FILE": str(file)})


def test_a_file_that_is_no_text_is_named_with_its_setting(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^DATABASE_PASSWORD_FILE: "):
        load(Settings, {**ENOUGH, "DATABASE_PASSWORD_FILE": str(file)})


def test_a_value_is_never_printed_with_what_is_wrong_with_a_secret() -> None:
    with pytest.raises(SettingsError) as refusal:
        load(SetupSettings, {**ENOUGH, "POSTGRES_PASSWORD": "hush", "USERS_DATABASE_PASSWORD": "hush"})
    assert "RECORDS_DATABASE_PASSWORD is not set" in str(refusal.value)
    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "FOO"),
        ("PUBLIC_URL", "foo"),
        ("PUBLIC_URL", "ftp://a.example"),
        ("PUBLIC_URL", "http://a b"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load(ServiceSettings, {"DATABASE_URL": "postgresql://a@b/c", name: value})


def test_a_public_url_is_scheme_host_and_port() -> None:
    for url in ("https://music.example", "http://10.0.0.1:8080/", "https://[::1]:1"):
        environ = {"DATABASE_URL": "postgresql://a@b/c", "PUBLIC_URL": url}
        assert load(ServiceSettings, environ).public_url == url
