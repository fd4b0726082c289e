"""Settings are read from the environment, and an error names the wrong setting."""

from pathlib import Path

import pytest

from common.settings import ServiceSettings, SettingsError, load
from deploy.backup import BackupStoreSettings
from deploy.gateway_settings import GatewaySettings
from deploy.setup import SetupSettings
from records.settings import MAX_ORIGINAL_BYTES, Settings
from records.storage import UPLOAD_PART_BYTES
from users.settings import Settings as UsersSettings

REQUIRED = {
    "DATABASE_URL": "postgresql://somebody@localhost/waxwing",
    "S3_ENDPOINT": "http://localhost:9000",
    "S3_ACCESS_KEY": "key",
    "S3_SECRET_KEY": "secret",
}


def test_only_four_settings_are_required_and_the_others_have_defaults() -> None:
    settings = load(Settings, REQUIRED)
    assert settings.store.s3_bucket == "records"
    assert settings.downloads == "accel"
    assert settings.max_upload_bytes == 4 * 1024**3
    assert settings.max_duration_seconds == 86400
    assert settings.encoder_threads >= 1
    assert load(UsersSettings, REQUIRED).port == 8000


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is not set"):
        load(Settings, {key: value for key, value in REQUIRED.items() if key != name})


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_an_empty_setting_counts_as_missing(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is not set"):
        load(Settings, {**REQUIRED, name: ""})


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
        ("LATE_CREDENTIALS_SECONDS", "0"),
        ("MAX_WAITING_UPLOADS", "-1"),
        ("UPLOAD_WAIT_SECONDS", "51"),
        ("LEASE_SECONDS", "0"),
        ("STORE_RETRY_SECONDS", "-1"),
        ("ENCODER_THREADS", "many"),
        ("QUOTA_BYTES", "0"),
        ("RETENTION_DAYS", "0"),
        ("KEEP_ORIGINALS", "always"),
        ("SHUTDOWN_SECONDS", "20"),
        # JSON and PostgreSQL have no such number, and no timer has such a time.
        ("QUOTA_BYTES", "9" * 30),
        ("MAX_TOTAL_BYTES", "9" * 19),
        ("LEASE_SECONDS", "9" * 15),
        ("STORE_RETRY_SECONDS", "inf"),
        ("DOWNLOADS", "nginx"),
        ("S3_ENDPOINT", "localhost:9000"),
        ("S3_ENDPOINT", "http://localhost:9000/bucket"),
        ("S3_ENDPOINT", "http://localhost:9000,"),
        ("S3_ENDPOINT", "http://localhost:9000 http://localhost:9001"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        load(Settings, {**REQUIRED, name: value})


@pytest.mark.parametrize(
    ("endpoints", "reason"),
    [
        ("http://a:9000,b:9000", "'b:9000' is no endpoint: write it like http://minio:9000"),
        ("http://a:9000,,http://b:9000", "'' is no endpoint: write it like http://minio:9000"),
        (
            "http://a:9000,http://b:9000/x",
            "'http://b:9000/x' is no endpoint: write it like http://minio:9000",
        ),
        ("http://a:port", "'http://a:port' is no endpoint: write it like http://minio:9000"),
        ("http://a:9000,https://b:9000", "all nodes of a store must have the same scheme, http or https"),
        ("http://a:9000,http://a:9000/", "http://a:9000 is named twice"),
        ("http://a:80,http://A", "http://A is named twice"),
        ("https://a,https://a:443", "https://a:443 is named twice"),
        ("http://a;b", "'http://a;b' is no endpoint: write it like http://minio:9000"),
        ("http://a{}", "'http://a{}' is no endpoint: write it like http://minio:9000"),
        ("http://a:", "'http://a:' is no endpoint: write it like http://minio:9000"),
        # The part before the @ may be a key.
        ("http://key:secret@a:9000", "'…@a:9000' is no endpoint: write it like http://minio:9000"),
    ],
)
def test_a_wrong_node_of_the_store_is_named(endpoints: str, reason: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(Settings, {**REQUIRED, "S3_ENDPOINT": endpoints})
    assert str(refusal.value) == f"S3_ENDPOINT: {reason}"


def test_a_wrong_node_of_the_store_for_backups_is_named() -> None:
    keys = {"BACKUP_S3_ACCESS_KEY": "key", "BACKUP_S3_SECRET_KEY": "secret"}
    settings = load(BackupStoreSettings, {**keys, "BACKUP_S3_ENDPOINT": "http://a:9000,b:9000"})
    with pytest.raises(SettingsError, match=r"^BACKUP_S3_ENDPOINT: 'b:9000' is no endpoint"):
        settings.of_bucket("backups")


def test_a_store_may_have_several_nodes() -> None:
    store = load(
        Settings, {**REQUIRED, "S3_ENDPOINT": "http://a:9000/, http://b:9000,http://[::1]:9000"}
    ).store
    assert store.endpoints == ["http://a:9000", "http://b:9000", "http://[::1]:9000"]
    assert load(Settings, REQUIRED).store.endpoints == ["http://localhost:9000"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_UPLOAD_BYTES", "0"),
        ("CACHE_MAX_BYTES", "1k"),
        ("CACHE_SECONDS", "-1"),
        ("REQUESTS_PER_ADDRESS", "0"),
        ("UPLOADS_PER_ADDRESS", "65536"),
        ("SIGN_UPS_PER_MINUTE", "0"),
        ("SHUTDOWN_SECONDS", "20"),
        ("TRUSTED_PROXY", "localhost"),
        ("TRUSTED_PROXY", "10.0.0.1, 10.0.0.2"),
    ],
)
def test_a_wrong_setting_of_the_gateway_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name}: "):
        load(GatewaySettings, {name: value})


def test_a_trusted_proxy_may_be_a_network() -> None:
    for proxy in ("192.0.2.1", "192.0.2.0/24", "2001:db8::1", "2001:db8::/32"):
        assert load(GatewaySettings, {"TRUSTED_PROXY": proxy}).trusted_proxy == proxy


def test_numbers_are_parsed() -> None:
    settings = load(Settings, {**REQUIRED, "PORT": "8001", "MAX_UPLOADS": "7"})
    assert (settings.port, settings.max_uploads) == (8001, 7)


@pytest.mark.parametrize("range_name", [("MAX_BITRATE_KBPS", "112"), ("MIN_BITRATE_KBPS", "160")])
def test_a_default_bitrate_outside_the_allowed_range_is_rejected(range_name: tuple[str, str]) -> None:
    name, value = range_name
    with pytest.raises(SettingsError, match=rf"^DEFAULT_BITRATE_KBPS: 128 .*{name} \({value}\)"):
        load(Settings, {**REQUIRED, name: value})
    settings = load(Settings, {**REQUIRED, name: value, "DEFAULT_BITRATE_KBPS": value})
    assert settings.default_bitrate_kbps == int(value)


def test_uploads_larger_than_any_original_need_a_deployment_that_keeps_none() -> None:
    settings = {**REQUIRED, "MAX_UPLOAD_BYTES": str(MAX_ORIGINAL_BYTES + 1)}
    with pytest.raises(SettingsError, match=r"^MAX_UPLOAD_BYTES: 52428800001 .*KEEP_ORIGINALS=never"):
        load(Settings, settings)
    assert load(Settings, {**settings, "KEEP_ORIGINALS": "never"}).max_upload_bytes == MAX_ORIGINAL_BYTES + 1
    assert MAX_ORIGINAL_BYTES == 10_000 * UPLOAD_PART_BYTES


def test_a_setting_can_come_from_a_file_whose_last_newline_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret word\n")
    settings = load(Settings, {**REQUIRED, "DATABASE_PASSWORD_FILE": str(file)})
    assert settings.database_password == "secret word"


def test_a_required_setting_of_a_nested_struct_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from file")
    environment = {name: value for name, value in REQUIRED.items() if name != "S3_SECRET_KEY"}
    settings = load(Settings, {**environment, "S3_SECRET_KEY_FILE": str(file)})
    assert settings.store.s3_secret_key == "from file"


def test_a_setting_together_with_its_file_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD and DATABASE_PASSWORD_FILE are both set"):
        load(Settings, {**REQUIRED, "DATABASE_PASSWORD": "other", "DATABASE_PASSWORD_FILE": str(file)})


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DATABASE_PASSWORD_FILE: .*absent"):
        load(Settings, {**REQUIRED, "DATABASE_PASSWORD_FILE": str(tmp_path / "absent")})


def test_an_empty_file_counts_as_a_missing_setting(tmp_path: Path) -> None:
    file = tmp_path / "empty"
    file.touch()
    environment = {name: value for name, value in REQUIRED.items() if name != "S3_SECRET_KEY"}
    with pytest.raises(SettingsError, match=r"^S3_SECRET_KEY is not set"):
        load(Settings, {**environment, "S3_SECRET_KEY_FILE": str(file)})


def test_the_setting_of_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"^DATABASE_PASSWORD_FILE: "):
        load(Settings, {**REQUIRED, "DATABASE_PASSWORD_FILE": str(file)})


def test_an_error_never_prints_the_value_of_a_secret() -> None:
    with pytest.raises(SettingsError) as rejected:
        load(SetupSettings, {**REQUIRED, "POSTGRES_PASSWORD": "hush", "USERS_DATABASE_PASSWORD": "hush"})
    assert "RECORDS_DATABASE_PASSWORD is not set" in str(rejected.value)
    assert "hush" not in str(rejected.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "FOO"),
        ("PUBLIC_URL", "foo"),
        ("PUBLIC_URL", "ftp://a.example"),
        ("PUBLIC_URL", "http://a b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
    ],
)
def test_a_setting_with_an_invalid_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load(ServiceSettings, {"DATABASE_URL": "postgresql://a@b/c", name: value})


def test_a_public_url_is_scheme_host_and_port() -> None:
    for url in ("https://music.example", "http://10.0.0.1:8080/", "https://[::1]:1"):
        environ = {"DATABASE_URL": "postgresql://a@b/c", "PUBLIC_URL": url}
        assert load(ServiceSettings, environ).public_url == url
