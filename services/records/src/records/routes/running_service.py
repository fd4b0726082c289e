"""What a started instance of the service holds, for its handlers."""

from typing import Any, NamedTuple
from uuid import UUID

from litestar import Request
from sqlalchemy.ext.asyncio import AsyncEngine

from common.credentials import require_credentials
from records.row_reader import RowReader
from records.settings import Settings
from records.sql import find_user
from records.storage import ObjectStore
from records.uploads import Uploads


class RunningService(NamedTuple):
    """Connections, uploads and settings of a started instance."""

    engine: AsyncEngine
    reader: RowReader
    store: ObjectStore
    uploads: Uploads
    settings: Settings

    async def authenticate(self, request: Request[Any, Any, Any], *, to_write: bool = False) -> UUID:
        """Returns the id of the user whose credentials are in the header.

        Raises InvalidCredentials, and UserBlocked `to_write` if the user is blocked.
        """
        credentials = require_credentials(request.headers.get("authorization"))
        return await find_user(self.engine, credentials, to_write=to_write)

    def link_origin(self, request: Request[Any, Any, Any]) -> str:
        """Returns PUBLIC_URL, or the scheme, host and port that the client used."""
        return self.settings.public_url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"
