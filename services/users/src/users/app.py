"""The composition root of the users service: everything it is made of, in the order in which it starts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, Router
from litestar.di import Provide
from sqlalchemy.ext.asyncio import AsyncEngine

from common.cors import make_cors
from common.db import check_database, make_engine
from common.health import make_health_routes
from common.hosts import HostCheck
from common.methods import with_options
from common.openapi import make_document, make_openapi
from common.problems import render
from users import openapi
from users.pages import make_pages
from users.routes import get_user, post_token, post_user, remove_user
from users.service import DELETION_TIMEOUT_SECONDS
from users.settings import Settings

# A name has at most 100 characters; the gateway has the same limit for /users.
MAX_BODY_BYTES = 64 * 1024


def create_app(settings: Settings) -> Litestar:
    """The users service for these settings; nothing is opened before its lifespan begins."""

    engine: AsyncEngine
    # Those who delete many records take no connection from the others either.
    patient_engine: AsyncEngine

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal engine, patient_engine
        database = settings.database_url, settings.database_password
        engine = make_engine(*database)
        patient_engine = make_engine(*database, DELETION_TIMEOUT_SECONDS, pool_size=4)
        yield
        await engine.dispose()
        await patient_engine.dispose()

    async def check_postgres() -> None:
        await check_database(engine)

    # Not from app.state, of which Litestar makes a copy for every request.
    def provide_engine() -> AsyncEngine:
        return engine

    def provide_patient_engine() -> AsyncEngine:
        return patient_engine

    return Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=with_options(post_user, get_user, post_token, remove_user),
                middleware=[HostCheck(settings)],
            ),
            make_pages(),
            *with_options(make_document("users")),
            *make_health_routes({"PostgreSQL": check_postgres}),
        ],
        dependencies={
            "engine": Provide(provide_engine, sync_to_thread=False),
            "patient_engine": Provide(provide_patient_engine, sync_to_thread=False),
        },
        before_send=make_cors(settings),
        lifespan=[lifespan],
        exception_handlers={Exception: render},
        request_max_body_size=MAX_BODY_BYTES,
        tags=["users"],
        openapi_config=make_openapi("users", "Accounts and their tokens", openapi.ABOUT, openapi.FIELDS),
        logging_config=None,
    )
