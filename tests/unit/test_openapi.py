"""The OpenAPI documents are valid, complete and up to date, and problems.md explains every problem."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from common.problems import RETRY_AFTER_SECONDS, Problem, Unavailable, type_of
from common.requests import MAX_JSON_BYTES
from common.version import VERSION
from deploy.pages import PROBLEMS
from deploy.upkeep.openapi import FOLDER, REQUESTS, make_apps, make_documents, make_requests
from records.form import AUDIO, FIELDS, OPTIONS
from records.openapi import BITRATE, MAX_COUNT, UPLOAD
from records.requests import COUNT
from records.settings import Settings
from records.storage import STORE_AWAY

DOCUMENTS = make_documents()
ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "deploy" / "gateway" / "waxwing.conf.template"
# Problems that any operation can return, so no operation lists them. Nobody reads ClientGone.
ANYWHERE = {
    *("ClientGone", "InternalError", "MethodNotAllowed", "NotReady", "RequestTimeout", "TooManyRequests"),
}


def classes(base: type[Problem] = Problem) -> Iterator[type[Problem]]:
    for problem in base.__subclasses__():
        yield problem
        yield from classes(problem)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def contents() -> Iterator[Any]:
    """Yields the media type object of every body in the documents, with its document."""
    for document in DOCUMENTS.values():
        for name, operation in operations(document):
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            for body in [*bodies, *operation["responses"].values()]:
                for media_type, content in body.get("content", {}).items():
                    yield pytest.param(document, content, id=f"{name} {media_type}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_valid_openapi_3_1(name: str) -> None:
    assert DOCUMENTS[name]["openapi"].startswith("3.1")
    assert DOCUMENTS[name]["info"]["version"] == VERSION
    OpenAPIV31SpecValidator(DOCUMENTS[name]).validate()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_in_the_repository_is_the_served_one(name: str) -> None:
    kept = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert kept == DOCUMENTS[name], "run `./just openapi`"


def test_the_example_requests_cover_the_operations_of_the_documents() -> None:
    requests = REQUESTS.read_text(encoding="utf-8")
    assert requests == make_requests(DOCUMENTS), "run `./just openapi`"
    names = [name for document in DOCUMENTS.values() for name, _ in operations(document)]
    asked = re.findall(r"^([A-Z]+) \{\{gateway\}\}([^?\n]*)", requests, re.MULTILINE)
    assert len(asked) == sum(not name.startswith("HEAD ") for name in names)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_route_for_clients_is_in_a_document(name: str) -> None:
    described = {what for what, _ in operations(DOCUMENTS[name])}
    left_out = re.compile("/(healthz|readyz|metrics|openapi|_lost|_picture)")
    served = {
        f"{method} {route.path_format}"
        for route in make_apps()[name].routes
        if not left_out.match(route.path)
        for method in getattr(route, "methods", ())
        if method != "OPTIONS"
    }
    assert described == served


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_of_a_response_has_a_description(name: str) -> None:
    for kind, schema in DOCUMENTS[name]["components"]["schemas"].items():
        for field, property_ in schema.get("properties", {}).items():
            assert "description" in property_ or (kind, field) == ("Problem", "status"), (kind, field)


def test_link_and_digest_have_their_formats() -> None:
    record = DOCUMENTS["records"]["components"]["schemas"]["RecordDocument"]["properties"]
    assert record["url"]["format"] == "uri"
    assert re.search(record["sha256"]["pattern"], "0f" * 32)
    assert not re.search(record["sha256"]["pattern"], "0F" * 32)


def test_the_document_says_when_the_wav_is_kept_and_how_large_it_may_be() -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    document = DOCUMENTS["records"]
    for text in (document["info"]["description"], document["paths"]["/records"]["post"]["description"]):
        assert "**The original WAV is kept only if you ask for it**" in text
        assert f"{defaults['max_upload_bytes'] // 2**30} GiB" in text
        assert f"{defaults['max_duration_seconds'] // 3600} hours" in text


def test_the_default_bitrate_in_the_document_is_the_settings_default() -> None:
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert f"; {defaults['default_bitrate_kbps']} by default." in BITRATE["description"]


def test_the_document_has_the_form_parts_that_the_service_reads_with_audio_last() -> None:
    assert [*UPLOAD["multipart/form-data"]["schema"]["properties"]] == [*FIELDS, AUDIO]
    parameters = DOCUMENTS["records"]["paths"]["/records"]["post"]["parameters"]
    assert [one["name"] for one in parameters if one["in"] == "query"] == [*OPTIONS]


def test_every_operation_with_credentials_lists_basic_before_bearer_as_a_401_does() -> None:
    listed = [one["security"] for document in DOCUMENTS.values() for _, one in operations(document)]
    assert {tuple(scheme for one in security for scheme in one) for security in listed} == {
        (),
        ("basic", "bearer"),
    }


def test_the_highest_count_in_the_document_is_the_highest_that_the_service_reads() -> None:
    assert COUNT.fullmatch(str(MAX_COUNT))
    assert not COUNT.fullmatch(str(MAX_COUNT + 1))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_does_not_name_the_software_behind_the_api(name: str) -> None:
    assert not re.search("nginx|Litestar|Python|MinIO", json.dumps(DOCUMENTS[name]))


@pytest.mark.parametrize(("document", "content"), [*contents()])
def test_every_example_matches_its_schema(document: dict[str, Any], content: dict[str, Any]) -> None:
    examples = [one["value"] for one in content.get("examples", {}).values()]
    examples += [content["example"]] if "example" in content else []
    # A file has no example in JSON.
    assert examples or '"format": "binary"' in json.dumps(content["schema"])
    schema = {**content["schema"], "components": document["components"]}
    for example in examples:
        OAS31Validator(schema, format_checker=OAS31Validator.FORMAT_CHECKER).validate(example)


def test_every_problem_class_is_a_response_of_an_operation() -> None:
    answers = json.dumps(DOCUMENTS)
    missing = [one.__name__ for one in classes() if f'"{type_of(one)}"' not in answers]
    assert set(missing) == ANYWHERE


def test_problems_md_explains_every_problem_class_with_its_status_and_title() -> None:
    for problem in classes():
        paragraph = PROBLEMS[type_of(problem).removeprefix("/problems/")]
        assert (paragraph["status"], paragraph["title"]) == (str(problem.status_code), problem.title)


def test_problems_md_explains_every_problem_of_the_gateway_with_the_same_title() -> None:
    made = re.findall(r'"type":"/problems/([^"]+)","title":"([^"]+)"', TEMPLATE.read_text(encoding="utf-8"))
    assert len(made) > 5
    for name, title in made:
        assert PROBLEMS[name]["title"] == title


def test_the_gateway_and_the_service_describe_an_outage_of_the_store_alike() -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    (location,) = re.findall(r"location @store_away \{(.*?)\n    \}", template, re.DOTALL)
    assert f'"detail":"{Unavailable(STORE_AWAY).detail}"' in location
    assert re.search(rf"503 +{RETRY_AFTER_SECONDS};", template)


def test_the_gateway_and_the_users_service_have_the_same_limit_for_a_body() -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    (limits,) = re.findall(r"\$waxwing_body_limit \{(.*?)\n\}", template, re.DOTALL)
    assert re.findall(r"default +(\d+);", limits) == [str(MAX_JSON_BYTES)]
    assert f"client_max_body_size {MAX_JSON_BYTES};" in template


def test_the_api_page_names_the_status_of_every_problem_that_a_client_sees() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", page, re.MULTILINE)
    # 499 is only in the log: nobody reads the response.
    seen = {paragraph["status"] for paragraph in PROBLEMS.values()} - {"499"}
    assert sorted(status for row in rows for status in row.split(", ")) == sorted(seen)


def test_problems_md_explains_no_problem_that_does_not_exist() -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    known = {type_of(problem) for problem in classes()} | set(re.findall('"(/problems/[^"]+)"', template))
    assert {f"/problems/{name}" for name in PROBLEMS} == known
