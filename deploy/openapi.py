"""Writes docs/openapi/users.json and records.json, as the services serve them (`just openapi`)."""

import json
from pathlib import Path
from typing import Any

from litestar import Litestar

import records.app
import records.settings
import users.app
import users.settings

FOLDER = Path(__file__).parents[1] / "docs" / "openapi"


def make_apps() -> dict[str, Litestar]:
    """Both services by name; nothing has to be there for them, as they are not started."""
    store = records.settings.StoreSettings(s3_endpoint="http://minio", s3_access_key="", s3_secret_key="")
    return {
        "users": users.app.create_app(users.settings.Settings(database_url="postgresql://")),
        "records": records.app.create_app(
            records.settings.Settings(database_url="postgresql://", store=store)
        ),
    }


def make_documents() -> dict[str, dict[str, Any]]:
    """The documents by the names of their services."""
    return {name: app.openapi_schema.to_schema() for name, app in make_apps().items()}


def main() -> None:
    """Writes them, laid out to be read and compared."""
    for name, document in make_documents().items():
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
