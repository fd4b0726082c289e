"""GET and HEAD /record with If-None-Match, If-Modified-Since, If-Match and If-Unmodified-Since."""

from email.utils import formatdate

import pytest

from deploy.client import Client
from tests.acceptance.mp3_checks import Published, assert_mp3, assert_not_modified
from tests.response_checks import assert_problem


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("given", ["{}", "W/{}", '"x", {}', '{}, "x"', "*"])
def test_a_matching_etag_in_if_none_match_gets_304(
    client: Client, published: Published, method: str, given: str
) -> None:
    headers = {"If-None-Match": given.format(published.headers["ETag"])}
    assert_not_modified(client.http.request(method, published.url, headers=headers), published)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_last_modified_date_in_if_modified_since_gets_304(
    client: Client, published: Published, method: str
) -> None:
    headers = {"If-Modified-Since": published.headers["Last-Modified"]}
    assert_not_modified(client.http.request(method, published.url, headers=headers), published)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"If-None-Match": '"x"'}, id="another ETag"),
        pytest.param({"If-Modified-Since": formatdate(0, usegmt=True)}, id="an earlier date"),
        pytest.param({"If-Modified-Since": "yesterday"}, id="no date"),
        pytest.param({"If-Match": "*"}, id="any ETag"),
        pytest.param({"If-Unmodified-Since": "Fri, 31 Dec 2100 00:00:00 GMT"}, id="a later date"),
        pytest.param({"If-Range": '"x"'}, id="If-Range without a range"),
    ],
)
def test_a_condition_that_is_true_gets_the_mp3(
    client: Client, published: Published, headers: dict[str, str]
) -> None:
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


def test_if_none_match_wins_over_if_modified_since(client: Client, published: Published) -> None:
    headers = {"If-None-Match": '"x"', "If-Modified-Since": published.headers["Last-Modified"]}
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


def test_the_etag_in_if_match_gets_the_mp3(client: Client, published: Published) -> None:
    headers = {"If-Match": published.headers["ETag"]}
    assert_mp3(client.http.get(published.url, headers=headers), 200, published.mp3)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"If-Match": '"x"'}, id="another ETag"),
        pytest.param({"If-Match": 'W/"x"'}, id="a weak ETag"),
        pytest.param({"If-Unmodified-Since": formatdate(0, usegmt=True)}, id="an earlier date"),
        pytest.param({"If-Match": '"x"', "Range": "bytes=0-1"}, id="another ETag with a range"),
    ],
)
def test_a_precondition_that_is_false_gets_412(
    client: Client, published: Published, headers: dict[str, str]
) -> None:
    response = client.http.get(published.url, headers=headers)
    assert_problem(response, 412, "precondition-failed")


def test_the_etag_made_weak_in_if_match_gets_412(client: Client, published: Published) -> None:
    response = client.http.get(published.url, headers={"If-Match": f"W/{published.headers['ETag']}"})
    assert_problem(response, 412, "precondition-failed")
