"""schemathesis makes requests of the OpenAPI documents, good and bad ones, and judges each answer by them."""

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
# All its checks are on, save that of time, which has no limit. It knows which status is right for a method or
# content type that is none, so that what any address may answer need not stand at each operation. That others
# cannot have a record is left to test_access.
CONFIG = {
    # A bound for what never comes.
    "request-timeout": 60,
    # The same requests in every run, of which nothing is kept.
    "seed": 1,
    "generation": {"max-examples": 30, "database": "none", "with-security-parameters": False},
    # A good request may find a precondition that fails, a range behind the end, or a key that was used.
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 304, 401, 404, 412, 416, 422]}},
    # Random text is hardly ever a range.
    "dictionaries": {"ranges": {"values": ["bytes=0-9", "bytes=-9", "bytes=999999-"]}},
    "parameters": {"header.Range": {"dictionary": "ranges", "probability": 0.5}},
}
# A schema cannot say what a WAV is.
schemathesis.openapi.media_type("audio/wav", st.just(TINY_WAV))


def load(service: str) -> OpenApiSchema:
    """The document of a service, which is the one that is served (test_documents)."""
    config = SchemathesisConfig.from_dict(CONFIG)
    return schemathesis.openapi.from_path(FOLDER / f"{service}.json", config=config)


Own = dict[str, str]


def make_own(client: Client) -> Own:
    """What a fresh user has, by the names of parameters and fields."""
    user = client.create_user("Test")
    record = client.upload(io.BytesIO(TINY_WAV), user["id"], user["token"])["id"]
    own = {"record_id": record, "id": record, "user": user["id"], "user_id": user["id"]}
    return {**own, "token": user["token"]}


def aim(case: Case[Any], own: Own) -> dict[str, str]:
    """Lets a request mean what there is, as far as it is well formed; returns the header that it needs."""
    fields: dict[str, Any] = case.body if isinstance(case.body, dict) else {}
    # First, as what is changed is looked at anew, by a schema that does not know a WAV.
    if case.meta and case.meta.generation.mode.is_positive:
        # What OpenAPI cannot say: of these one excludes the other, and the audio comes last.
        if case.media_type == "multipart/form-data":
            case.query.clear()
            fields["audio"] = fields.pop("audio")
        if "points" in case.query:
            case.query.pop("samples_per_pixel", None)
    for given in (case.path_parameters, case.query, fields):
        for name in own.keys() & given.keys():
            if isinstance(given[name], str) and (name == "token" or UUID.fullmatch(given[name])):
                given[name] = own[name]
    if "user" in case.query or {"user_id", "token"} & fields.keys():
        return {}
    return {"Authorization": f"Bearer {own['token']}"}


@pytest.fixture
def own(client: Client) -> Own:
    """Of a user for each operation, so that none ends what another needs."""
    return make_own(client)


@schemathesis.pytest.parametrize(users=load("users"), records=load("records"))
@settings(deadline=None, suppress_health_check=[*HealthCheck])
def test_every_answer_is_one_that_the_document_tells(case: Case[Any], base_url: str, own: Own) -> None:
    case.call_and_validate(base_url, headers=aim(case, own))


def test_what_is_deleted_is_gone_from_every_operation_that_led_to_it(base_url: str, client: Client) -> None:
    """Requests follow one another: schemathesis sees which answer has what the next one asks for."""

    class Sequence(load("records").as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            self.own = make_own(client)

        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            return {"base_url": base_url, "headers": aim(case, self.own)}

    Sequence.run(
        settings=settings(
            max_examples=20,
            stateful_step_count=8,
            derandomize=True,
            deadline=None,
            suppress_health_check=[*HealthCheck],
        )
    )
