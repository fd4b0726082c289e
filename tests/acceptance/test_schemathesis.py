"""schemathesis sends valid and invalid requests from the OpenAPI documents and checks the responses."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.schemas import OpenApiSchema

from deploy.client import Client
from tests.upload_requests import TINY_WAV

FOLDER = Path(__file__).parents[2] / "docs" / "openapi"
UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# All checks of schemathesis are on, except the one for response times. It knows which status is right for an
# unknown method or content type, so operations need not document these. test_access.py checks that users
# have no access to the records of others.
CONFIG = {
    # Only ends a test that waits for a response that never comes.
    "request-timeout": 60,
    # Every run sends the same requests and stores none of them.
    "seed": 1,
    "generation": {"max-examples": 30, "database": "none", "with-security-parameters": False},
    # A valid request may get one of these: a precondition is false, a range is past the end, a key was used.
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 304, 401, 404, 412, 416, 422]}},
    # Random text is rarely a valid range.
    "dictionaries": {"ranges": {"values": ["bytes=0-9", "bytes=-9", "bytes=999999-"]}},
    "parameters": {"header.Range": {"dictionary": "ranges", "probability": 0.5}},
}
# A schema cannot describe a WAV.
schemathesis.openapi.media_type("audio/wav", st.just(TINY_WAV))


def load(service: str) -> OpenApiSchema:
    """Loads the document of a service; test_documents.py checks that the service serves the same one."""
    config = SchemathesisConfig.from_dict(CONFIG)
    return schemathesis.openapi.from_path(FOLDER / f"{service}.json", config=config)


Own = dict[str, str]


def make_user_with_record(client: Client) -> Own:
    """Creates a user with a record; returns ids and token by the names of parameters and form fields."""
    user = client.create_user("Test")
    record = client.upload(io.BytesIO(TINY_WAV), user["id"], user["token"])["id"]
    own = {"record_id": record, "id": record, "user": user["id"], "user_id": user["id"]}
    return {**own, "token": user["token"]}


def follow_rules(case: Case[Any], fields: dict[str, Any]) -> None:
    """Makes a valid case follow what OpenAPI cannot express: that two parameters exclude each other, that the
    audio comes last and is a WAV, or that an original needs both credentials.
    """
    if case.media_type == "multipart/form-data":
        if "keep_original" in fields:
            fields["keep_original"] = "false"
        case.query = {}
        del fields["audio"]
        fields["audio"] = TINY_WAV
    if "points" in case.query:
        case.query.pop("samples_per_pixel", None)


def use_existing_ids(case: Case[Any], own: Own) -> dict[str, str]:
    """Replaces valid ids in a request by existing ones, and returns the header with the credentials."""
    # A copy, because several cases share one body.
    fields: dict[str, Any] = dict(case.body) if isinstance(case.body, dict) else {}
    is_valid = case.meta and case.meta.generation.mode.is_positive
    if is_valid:
        follow_rules(case, fields)
    if fields:
        case.body = fields
    for given in (case.path_parameters, case.query, fields):
        for name in own.keys() & given.keys():
            if isinstance(given[name], str) and (name == "token" or UUID.fullmatch(given[name])):
                given[name] = own[name]
    if is_valid:
        # Otherwise schemathesis would validate the changed case again, and its schema knows no WAV.
        case._record_starting_state()
    if "user" in case.query or {"user_id", "token"} & fields.keys():
        return {}
    return {"Authorization": f"Bearer {own['token']}"}


@pytest.fixture
def own(client: Client) -> Own:
    """A new user for each operation, so that no operation deletes what another one needs."""
    return make_user_with_record(client)


@schemathesis.pytest.parametrize(users=load("users"), records=load("records"))
@settings(deadline=None, suppress_health_check=[*HealthCheck])
def test_every_response_is_a_documented_one(case: Case[Any], base_url: str, own: Own) -> None:
    case.call_and_validate(base_url, headers=use_existing_ids(case, own))


def test_chained_requests_get_documented_responses_and_find_nothing_deleted(
    base_url: str, client: Client
) -> None:
    """schemathesis chains requests: it takes the ids for a request from earlier responses."""

    class Sequence(load("records").as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            self.own = make_user_with_record(client)

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return {"base_url": base_url, "headers": use_existing_ids(case, self.own)}

    Sequence.run(
        settings=settings(
            max_examples=20,
            stateful_step_count=8,
            derandomize=True,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        )
    )
