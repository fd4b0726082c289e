"""A 401 offers Basic to clients that send credentials only when they are asked, and to no browser."""

import json
import subprocess
import urllib.request
from typing import Any

import imageio_ffmpeg
import pytest

from deploy.client import Client
from tests.response_checks import BASIC_OR_BEARER, BEARER, assert_problem
from tests.upload_requests import bearer


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, BASIC_OR_BEARER),
        ({"Authorization": "Basic d3Jvbmc="}, BASIC_OR_BEARER),
        ({"Authorization": "Digest x"}, BASIC_OR_BEARER),
        ({"Authorization": "Bearer wrong"}, BEARER),
        # Every browser sends this header with every request.
        ({"Sec-Fetch-Mode": "cors"}, BEARER),
        ({"Sec-Fetch-Mode": "navigate", "Authorization": "Basic d3Jvbmc="}, BEARER),
    ],
)
@pytest.mark.parametrize("path", ["/users/me", "/records"])
def test_basic_comes_first_but_not_for_a_browser(
    client: Client, path: str, headers: dict[str, str], challenge: str
) -> None:
    response = client.http.get(path, headers=headers)
    assert_problem(response, 401, "invalid-credentials")
    assert response.headers.get_list("WWW-Authenticate") == [challenge]


def test_pythons_own_client_authenticates_when_it_is_asked(base_url: str, user: dict[str, Any]) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, base_url, user["id"], user["token"])
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPBasicAuthHandler(passwords)
    )
    with opener.open(f"{base_url}/users/me") as response:
        assert json.load(response)["id"] == user["id"]


def test_curl_finds_the_scheme_that_it_can_use(base_url: str, user: dict[str, Any]) -> None:
    command = ["curl", "-sS", "--noproxy", "*", "--anyauth", "-u", f"{user['id']}:{user['token']}"]
    done = subprocess.run([*command, f"{base_url}/users/me"], check=True, capture_output=True)
    assert json.loads(done.stdout)["id"] == user["id"]


def test_ffmpeg_authenticates_when_it_is_asked(base_url: str, user: dict[str, Any]) -> None:
    url = base_url.replace("://", f"://{user['id']}:{user['token']}@")
    # ffmpeg copies data as it is.
    copy = ["-f", "data", "-i", f"{url}/users/me", "-map", "0", "-c", "copy", "-f", "data", "pipe:1"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *copy]
    done = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(done.stdout)["id"] == user["id"]


def test_a_basic_value_without_a_colon_is_told_what_it_must_be(client: Client) -> None:
    response = client.http.get("/users/me", headers={"Authorization": "Basic d3Jvbmc="})
    assert_problem(response, 401, "invalid-credentials", "base64 of 'USER_ID:TOKEN'")


def test_right_credentials_are_never_challenged(client: Client, user: dict[str, Any]) -> None:
    response = client.http.get("/users/me", headers=bearer(user))
    assert (response.status_code, "WWW-Authenticate" in response.headers) == (200, False)
