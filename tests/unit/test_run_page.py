"""docs/run.md lists every setting, with the default of the code."""

import re
from typing import Any

import msgspec

from deploy.backup import BackupStoreSettings
from deploy.gateway_settings import GatewaySettings
from deploy.setup import SetupSettings
from records.settings import Settings as RecordsSettings
from tests.docs_examples import ROOT
from users.settings import Settings as UsersSettings

ROWS = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", (ROOT / "docs/run.md").read_text(encoding="utf-8"), re.M)
# The code takes this one from the machine.
CORES = "ENCODER_THREADS"


def read_defaults(*kinds: type[msgspec.Struct]) -> dict[str, Any]:
    """Returns the settings of the code by the names of their environment variables, with their defaults."""
    defaults: dict[str, Any] = {}
    for kind in kinds:
        for field in msgspec.structs.fields(kind):
            if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
                defaults |= read_defaults(field.type)
            else:
                defaults[field.name.upper()] = field.default
    return defaults


DEFAULTS = read_defaults(BackupStoreSettings, GatewaySettings, SetupSettings, RecordsSettings, UsersSettings)


def test_the_page_lists_the_settings_of_the_code_and_of_env_example_and_no_others() -> None:
    example = re.findall(
        r"^#([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(example) > 50
    assert {name for name, _ in ROWS} == {*DEFAULTS, *example}


def test_the_page_shows_the_defaults_of_the_code() -> None:
    shown = {name: default for name, default in ROWS if name in DEFAULTS and name != CORES}
    wrong = {}
    for name, default in shown.items():
        # A setting without a value in the code has none on the page, or words.
        if DEFAULTS[name] in (None, "", msgspec.NODEFAULT):
            right = not default[:1].isdigit()
        else:
            right = default.split(",")[0] == str(DEFAULTS[name])
        if not right:
            wrong[name] = default
    assert wrong == {}
