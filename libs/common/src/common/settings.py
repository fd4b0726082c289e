"""Settings: frozen structs. Each field is read from the environment variable of its name in capitals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# Above this, numbers in JSON are not exact.
PositiveInt = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
# At most a century, which every timer can take.
Seconds = Annotated[int, msgspec.Meta(ge=1, le=36_500 * 86_400)]
# A service has 20 s less for its requests.
ShutdownSeconds = Annotated[int, msgspec.Meta(ge=21, le=36_500 * 86_400)]
LogFormat = Literal["json", "text"]
PublicUrl = Annotated[str, msgspec.Meta(pattern=r"^(https?://[^/?#\s]+/?)?$")]

OtlpEndpoint = Annotated[str, msgspec.Meta(pattern=r"^(https?://[^/?#\s]+(/[^?#\s]*)?)?$")]


class SettingsError(Exception):
    """A setting is missing or wrong. The message names the environment variable."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that both services have."""

    host: str = "127.0.0.1"
    port: Port = 8000
    database_url: str
    # Separate from the URL, so that a file can hold it and it needs no escaping.
    database_password: str = ""
    # Connections that an instance opens at most; the records service has as many again for reading links.
    # Three instances of records and two of users fit into the 100 that PostgreSQL allows.
    database_pool_size: PositiveInt = 10
    public_url: PublicUrl = ""
    # Host names, separated by commas, that clients may use for the gateway.
    allowed_hosts: str = ""
    # Origins such as https://example.org, separated by commas; or * for all.
    cors_origins: Annotated[
        str, msgspec.Meta(pattern=r"^(\*|https?://[^/?#\s,*]+(\s*,\s*https?://[^/?#\s,*]+)*)?$")
    ] = ""
    # What one user may store, unless the operator has given the user quotas of its own; None: without limit.
    quota_records: PositiveInt | None = None
    quota_bytes: PositiveInt | None = None
    quota_seconds: PositiveInt | None = None
    # How often one address may send credentials, or ask for records, that do not exist.
    failures_per_minute: PositiveInt = 3000
    # Everything has ended so long after a stop signal. Requests that still run 20 s before then get a 503.
    shutdown_seconds: ShutdownSeconds = 50
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # json for programs, text for people at a terminal.
    log_format: LogFormat = "json"
    # The log to which the operator's commands append their audit lines; standard error if empty.
    audit_file: str = ""
    # The collector that gets traces (common.tracing); empty: none. OpenTelemetry's variable.
    otel_exporter_otlp_endpoint: OtlpEndpoint = ""


def load(kind: type[S], environ: Mapping[str, str]) -> S:
    """Reads a settings struct, and the structs in its fields, from the environment.

    If NAME_FILE is set, the value of NAME is read from the file at that path (for secrets).
    Raises SettingsError, which names the variable, if one is missing or has a wrong value.
    """
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        name = field.name.upper()
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            values[field.name] = load(field.type, environ)
        elif text := _read(name, environ):
            try:
                values[field.name] = msgspec.convert(text, field.type, strict=False)
            except msgspec.ValidationError as error:
                raise SettingsError(f"{name}: {error}") from error
        elif field.required:
            raise SettingsError(f"{name} is not set")
    return kind(**values)


def _read(name: str, environ: Mapping[str, str]) -> str:
    path = environ.get(f"{name}_FILE")
    if not path:
        return environ.get(name, "")
    if environ.get(name):
        raise SettingsError(f"{name} and {name}_FILE are both set; set only one of them")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: {error}") from error
