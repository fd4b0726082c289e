"""What docker-compose.yml promises, tested with the running containers (`just compose-up`)."""

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from common.version import VERSION
from deploy.client import Client
from deploy.local.ports import free_ports
from tests.raw_connection import open_raw_connection
from tests.upload_requests import TINY_WAV, WAV_TYPE, bearer, make_bare_upload
from tests.wavs import Wav, music, silence

BASE_URL = os.environ.get("BASE_URL") or f"http://127.0.0.1:{os.environ.get('GATEWAY_PORT', '8080')}"
LONG_RUNNING = ["gateway", "users", "records", "postgres", "minio"]
READY_SECONDS = 120


def compose(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", "compose", *arguments],  # noqa: S607 (the user's docker)
        check=check,
        capture_output=True,
        text=True,
        timeout=600,
    )


def containers() -> list[dict[str, Any]]:
    return [json.loads(line) for line in compose("ps", "--format", "json").stdout.splitlines()]


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(BASE_URL) as client:
        yield client


def wait_until_ready(client: Client) -> None:
    deadline = time.monotonic() + READY_SECONDS
    waiting = {"/healthz", "/readyz/users", "/readyz/records"}
    while waiting:
        assert time.monotonic() < deadline, f"not ready: {waiting}"
        path = min(waiting)
        try:
            if client.http.get(path).status_code == 200:
                waiting.remove(path)
        except httpx.TransportError:
            continue


def assert_all_is_kept(client: Client, user: dict[str, Any], record: dict[str, Any], mp3: bytes) -> None:
    """Checks that the MP3 is unchanged and that its user can still upload."""
    assert client.download(record["url"]) == mp3
    # No cache has the new record.
    wait_until_downloads_go_on(client, client.upload_stream([Wav().build(music(1))], user["token"]))


@pytest.fixture
def user(client: Client) -> dict[str, Any]:
    return client.create_user("Compose")


@pytest.fixture
def record(client: Client, user: dict[str, Any]) -> dict[str, Any]:
    return client.upload_stream([Wav().build(music(3))], user["token"])


def test_the_doctor_looks_at_the_database_and_the_bucket_of_the_containers(record: dict[str, Any]) -> None:
    done = compose("exec", "-T", "records", "python", "-m", "records", "doctor", "--json", check=False)
    # Tests that kill containers may leave findings.
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    assert json.loads(done.stdout.splitlines()[-1])["seen"]["ready"] > 0


def test_the_screen_shows_every_container(record: dict[str, Any]) -> None:
    found = json.loads(just("compose-status", "--json"))
    assert {part["name"] for part in found["parts"]} == {"gateway", "users", "records", "postgres", "store"}
    assert {part["state"] for part in found["parts"]} == {"ready"}
    assert all(part["version"] for part in found["parts"])
    assert found["contents"]["records"] > 0
    assert found["cache_free_bytes"] > 0


def test_the_operators_commands_work_in_the_container(
    client: Client, user: dict[str, Any], record: dict[str, Any]
) -> None:
    def run(*arguments: str) -> str:
        return compose("exec", "-T", "users", "python", "-m", "users", *arguments).stdout

    def upload() -> httpx.Response:
        return client.http.post("/records", content=TINY_WAV, headers={**bearer(user), **WAV_TYPE})

    assert user["id"] in run("list")
    run("block", user["id"])
    assert upload().json()["type"] == "/problems/user-blocked"
    assert client.http.get(record["url"]).status_code == 404
    run("unblock", user["id"])
    assert client.http.get(record["url"]).status_code == 200
    run("quota", user["id"], "--records", "1")
    assert upload().json()["type"] == "/problems/quota-reached"
    (token,) = re.findall(r"token +(\S+)", run("token", user["id"]))
    assert upload().status_code == 401
    run("quota", user["id"], "--records", "default")
    user["token"] = token
    unwanted = upload().json()
    compose("exec", "-T", "records", "python", "-m", "records", "remove", unwanted["url"])
    assert client.http.get(unwanted["url"]).status_code == 404
    assert '"action":"remove-record"' in compose("logs", "--tail", "50", "records").stdout


@pytest.mark.parametrize("service", LONG_RUNNING)
@pytest.mark.parametrize("how", [["restart"], ["stop", "start"], ["kill", "start"]], ids="-".join)
def test_a_container_loses_nothing_when_it_is_restarted(
    client: Client, user: dict[str, Any], record: dict[str, Any], service: str, how: list[str]
) -> None:
    mp3 = client.download(record["url"])
    for step in how:
        compose(step, service)
    wait_until_ready(client)
    assert_all_is_kept(client, user, record, mp3)


def test_uploads_under_way_get_a_response_while_everything_stops(
    client: Client, user: dict[str, Any]
) -> None:
    with ExitStack() as closer:
        # So few that each has a slot, even with little memory: one address gets three quarters of the slots.
        uploads = [closer.enter_context(open_raw_connection(BASE_URL)) for _ in range(4)]
        for upload in uploads:
            upload.send(make_bare_upload(BASE_URL, user)[:-1])
        wait_until_under_way(len(uploads))
        stopping = closer.enter_context(subprocess.Popen(["docker", "compose", "stop"]))  # noqa: S607
        try:
            wait_until_gone(client)
            for upload in uploads[:2]:
                upload.send(TINY_WAV[-1:])
                assert upload.read_response("POST").status_code == 201
            # The service ends the others: as too slow, or because it is stopping.
            for upload in uploads[2:]:
                upload.connection.settimeout(READY_SECONDS)
                assert upload.read_response("POST").status_code in {408, 503}
                upload.connection.close()
        finally:
            assert stopping.wait() == 0
            compose("up", "--wait")


def wait_until_under_way(count: int) -> None:
    """Waits until so many uploads are under way."""
    deadline = time.monotonic() + READY_SECONDS
    statement = "SELECT count(*) FROM records WHERE state = 'uploading'"
    psql = ["exec", "-T", "postgres", "psql", "-U", "postgres", "-tA", "-c", statement, "waxwing"]
    while int(compose(*psql).stdout) != count:
        assert time.monotonic() < deadline, f"no {count} uploads are under way"


def wait_until_gone(client: Client) -> None:
    """Waits until the gateway takes no new connection."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        assert time.monotonic() < deadline, "the gateway still takes connections"
        try:
            client.http.get("/healthz")
        except httpx.TransportError:
            return


def test_down_and_up_keep_everything(client: Client, user: dict[str, Any], record: dict[str, Any]) -> None:
    mp3 = client.download(record["url"])
    compose("down")
    compose("up", "--wait")
    assert_all_is_kept(client, user, record, mp3)


def test_two_instances_of_each_service_share_the_work_and_replace_each_other(
    client: Client, user: dict[str, Any], record: dict[str, Any]
) -> None:
    mp3 = client.download(record["url"])
    compose("up", "--wait", "--no-recreate", "--scale", "records=2", "--scale", "users=2")
    try:
        names = [one["Name"] for one in containers() if one["Service"] == "records"]
        assert len(names) == 2
        wait_until_work_is_shared(client, record, names)
        for name in names:
            # The other instance serves alone, and the gateway finds this one again at its new IP address.
            subprocess.run(["docker", "stop", name], check=True, capture_output=True)  # noqa: S607
            wait_until_downloads_go_on(client, record)
            subprocess.run(["docker", "start", name], check=True, capture_output=True)  # noqa: S607
            wait_until_work_is_shared(client, record, names)
        assert_all_is_kept(client, user, record, mp3)
    finally:
        compose("up", "--wait", "--no-recreate", "--scale", "records=1", "--scale", "users=1")


def wait_until_downloads_go_on(client: Client, record: dict[str, Any]) -> None:
    """Waits until ten downloads in a row succeed: then the gateway has noticed that an instance is away."""
    deadline = time.monotonic() + READY_SECONDS
    in_a_row = 0
    while in_a_row < 10:
        assert time.monotonic() < deadline, "no ten downloads in a row"
        response = client.http.get(record["url"])
        assert response.status_code in {200, 503}, response.text
        in_a_row = in_a_row + 1 if response.status_code == 200 else 0


def wait_until_work_is_shared(client: Client, record: dict[str, Any], names: list[str]) -> None:
    """Downloads until the log of each instance has one of these requests."""
    deadline = time.monotonic() + READY_SECONDS
    missing = set(names)
    while missing:
        assert time.monotonic() < deadline, f"no request reached {missing}"
        requests = {client.http.get(record["url"]).headers["X-Request-ID"] for _ in range(8)}
        for name in list(missing):
            log = subprocess.run(
                ["docker", "logs", "--tail", "200", name],  # noqa: S607
                check=True,
                capture_output=True,
                text=True,
            )
            if any(request in log.stdout for request in requests):
                missing.remove(name)


def test_more_long_uploads_than_fit_into_the_memory_are_refused_and_none_ends_the_service(
    client: Client,
) -> None:
    # At this sample rate half of the PCM's bytes become MP3: 28 MB of WAV make three upload parts of MP3.
    wav = Wav(bits=16, channels=1, rate=8000).build(silence(1760.0, rate=8000, channels=1))
    tokens = [client.create_user("Many")["token"] for _ in range(8)]

    def upload(number: int) -> int:
        headers = {"Authorization": f"Bearer {tokens[number % len(tokens)]}", "Content-Type": "audio/wav"}
        return client.http.post("/records", content=wav, headers=headers, timeout=600).status_code

    before = state_of("records")
    with ThreadPoolExecutor(64) as threads:
        statuses = Counter(threads.map(upload, range(64)))
    assert set(statuses) == {201, 503}
    after = state_of("records")
    assert not after["OOMKilled"]
    assert after["StartedAt"] == before["StartedAt"]


def state_of(service: str) -> dict[str, Any]:
    """Returns what Docker says about the state of a service's only container."""
    (container,) = (one for one in containers() if one["Service"] == service)
    inspected = subprocess.run(
        ["docker", "inspect", "-f", "{{json .State}}", container["Name"]],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    state: dict[str, Any] = json.loads(inspected.stdout)
    return state


def test_only_the_gateway_is_reachable_from_other_hosts() -> None:
    published = {
        (one["Service"], port["URL"])
        for one in containers()
        for port in one["Publishers"] or []
        if port["PublishedPort"]
    }
    assert {service for service, ip in published if ip != "127.0.0.1"} == {"gateway"}
    assert {service for service, ip in published if ip == "127.0.0.1"} <= {
        "minio",
        "postgres",
        "gateway",
    }


@pytest.mark.parametrize("service", ["users", "records"])
def test_a_service_cannot_reach_hosts_outside(service: str) -> None:
    """The kernel's routing table has no default route (destination 00000000)."""
    routes = compose("exec", "-T", service, "cat", "/proc/net/route").stdout.splitlines()[1:]
    assert routes
    assert "00000000" not in [route.split()[1] for route in routes]


def test_env_example_lists_every_variable_that_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)", Path("docker-compose.yml").read_text()))
    listed = set(re.findall(r"^#(\w+)=", Path(".env.example").read_text(), re.MULTILINE))
    assert read
    assert read <= listed


def test_a_backup_brings_a_deleted_record_back(client: Client, user: dict[str, Any], tmp_path: Path) -> None:
    record = client.upload_stream([TINY_WAV], user["token"])
    mp3 = client.http.get(record["url"]).content
    folder = tmp_path / "backup"
    just("compose-backup", str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    client.http.delete(f"/records/{record['id']}", headers=bearer(user)).raise_for_status()
    assert client.http.get(record["url"]).status_code == 404
    just("compose-restore", str(folder), "--overwrite")
    wait_until_ready(client)
    assert client.http.get(record["url"]).content == mp3


def just(*arguments: str) -> str:
    done = subprocess.run(
        ["./just", "--no-deps", *arguments], check=True, capture_output=True, text=True, timeout=600
    )
    return done.stdout


def test_all_times_of_a_stop_follow_from_one_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUTDOWN_SECONDS", "70")
    services = json.loads(compose("config", "--format", "json").stdout)["services"]
    for name in ("gateway", "users", "records"):
        assert services[name]["stop_grace_period"] == "1m10s"
    assert services["records"]["environment"]["SHUTDOWN_SECONDS"] == "70"
    assert services["gateway"]["command"][-1].endswith(" worker_shutdown_timeout 70s;")


def test_the_image_of_the_gateway_contains_its_configuration() -> None:
    (gateway,) = (one for one in containers() if one["Service"] == "gateway")
    template = Path("deploy/gateway/waxwing.conf.template").read_text()
    assert (
        compose("exec", "-T", "gateway", "cat", "/etc/nginx/templates/waxwing.conf.template").stdout
        == template
    )
    mounts = json.loads(
        subprocess.run(
            ["docker", "inspect", "-f", "{{json .Mounts}}", gateway["Name"]],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert [mount["Destination"] for mount in mounts if mount["Type"] != "tmpfs"] == ["/var/cache/waxwing"]


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_no_container_can_write_to_its_root_or_gain_privileges(service: str) -> None:
    writing = compose("exec", "-T", service, "touch", "/written", check=False)
    assert "Read-only file system" in writing.stderr
    status = compose("exec", "-T", service, "cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapEff"], 16) == 0


@pytest.mark.parametrize("service", ["gateway", "users", "records", "postgres"])
def test_no_process_that_serves_clients_runs_as_root(service: str) -> None:
    status = compose("exec", "-T", service, "cat", "/proc/1/status").stdout
    assert next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1] != "0"


@pytest.mark.parametrize(
    "public", ["PUBLIC_URL=https://music.example", "ALLOWED_HOSTS=localhost, music.example"]
)
def test_default_secrets_are_refused_with_a_public_host_and_the_settings_are_named(public: str) -> None:
    run = compose("run", "--rm", "--no-deps", "-e", public, "set-up", check=False)
    assert run.returncode != 0
    assert "music.example" in run.stderr
    assert "POSTGRES_PASSWORD" in run.stderr
    assert "S3_SECRET_KEY" in run.stderr
    assert "SIGNUP_KEY" in run.stderr


@pytest.mark.parametrize("wrong", ["CACHE_SECONDS=ten", "TRUSTED_PROXY=proxy", "SIGN_UPS_PER_MINUTE=0"])
def test_a_wrong_setting_of_the_gateway_is_named_by_the_set_up(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, value = wrong.split("=")
    monkeypatch.setenv(name, value)
    run = compose("run", "--rm", "--no-deps", "set-up", check=False)
    assert run.returncode != 0
    assert f"wrong setting: {name}: " in run.stderr


SECRETS = (
    "postgres_password",
    "users_database_password",
    "records_database_password",
    "minio_root_password",
    "s3_secret_key",
    "signup_key",
    "backup_s3_secret_key",
)


@pytest.fixture
def own_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Starts a second project with secrets from files beside the running one; yields its gateway's URL."""
    folders = {name: {"file": str(tmp_path / name)} for name in SECRETS}
    for name in SECRETS:
        (tmp_path / name).write_text(token_hex(16))
    (tmp_path / "files.json").write_text(json.dumps({"secrets": folders}))
    files = ["docker-compose.yml", "deploy/compose.secrets.yml", str(tmp_path / "files.json")]
    monkeypatch.setenv("COMPOSE_FILE", os.pathsep.join(files))
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "waxwing-secrets")
    gateway, console, postgres = free_ports(3)
    for name, port in (("GATEWAY_PORT", gateway), ("CONSOLE_PORT", console), ("POSTGRES_PORT", postgres)):
        monkeypatch.setenv(name, str(port))
    compose("up", "--wait")
    try:
        yield f"http://127.0.0.1:{gateway}"
    finally:
        compose("down", "-v", "--rmi", "local")


def test_secrets_come_from_files_and_stand_in_no_environment(own_project: str, tmp_path: Path) -> None:
    with Client(own_project) as client:
        user = client.create_user("Secret")
        record = client.upload_stream([Wav().build(music(3))], user["token"])
        assert len(client.download(record["url"])) == record["size_bytes"]
    secrets = [(tmp_path / name).read_text() for name in SECRETS]
    for service in ("users", "records"):
        environment = compose("exec", "-T", service, "env").stdout
        assert not [secret for secret in (*secrets, "laptop-") if secret in environment]


@pytest.mark.parametrize("service", ["gateway", "users", "records"])
def test_an_image_says_what_it_is(service: str) -> None:
    # A test above has built the images again, so the name may belong to a newer one than the container's.
    running = compose("images", "-q", service).stdout.strip()
    told = subprocess.run(
        ["docker", "image", "inspect", running, f"waxwing/{service}:{VERSION}"],  # noqa: S607 (the user's docker)
        check=True,
        capture_output=True,
        text=True,
    )
    for image in json.loads(told.stdout):
        labels = {
            name.removeprefix("org.opencontainers.image."): text
            for name, text in image["Config"]["Labels"].items()
        }
        assert labels["title"] == f"Waxwing {service}"
        assert "WAV in, MP3 link out" in labels["description"]
        assert labels["version"] == VERSION
        assert labels["revision"] == os.environ.get("REVISION", "")
        assert labels["licenses"].startswith("MIT AND ")
