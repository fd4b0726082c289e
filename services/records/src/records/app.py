"""The composition root of the records service: everything it is made of, in the order in which it starts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from litestar import Litestar, Router
from litestar.di import Provide

from common.cors import make_cors
from common.db import Reader, check_database, make_engine
from common.health import make_health_routes
from common.hosts import HostCheck
from common.methods import with_options
from common.openapi import make_document, make_openapi
from common.problems import render
from records import openapi
from records.routes import (
    Backend,
    get_record,
    get_record_audio,
    get_record_waveform,
    get_records,
    post_record,
    remove_record,
)
from records.settings import Settings
from records.storage import open_store
from records.sweeper import run_sweeper
from records.uploads import Uploads


def create_app(settings: Settings) -> Litestar:
    """The records service for these settings; nothing is opened before its lifespan begins."""

    backend: Backend

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal backend
        engine = make_engine(settings.database_url, settings.database_password)
        async with aclosing(Reader(engine)) as reader, open_store(settings.store) as store:
            uploads = Uploads(engine, store, settings)
            sweeper = asyncio.create_task(
                run_sweeper(engine, store, settings.lease_seconds, settings.sweep_seconds)
            )
            backend = Backend(engine, reader, store, uploads, settings)
            try:
                yield
            finally:
                sweeper.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeper
                await uploads.close()
                await engine.dispose()

    async def check_postgres() -> None:
        await check_database(backend.engine)

    async def check_store() -> None:
        await backend.store.check()

    # Not from app.state, of which Litestar makes a copy for every request.
    def provide_backend() -> Backend:
        return backend

    return Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=with_options(
                    post_record,
                    get_records,
                    get_record,
                    remove_record,
                    get_record_audio,
                    get_record_waveform,
                ),
                middleware=[HostCheck(settings)],
            ),
            *with_options(make_document("records")),
            *make_health_routes({"PostgreSQL": check_postgres, "object store": check_store}),
        ],
        # One: for several of them Litestar starts a group of tasks in every request.
        dependencies={"backend": Provide(provide_backend, sync_to_thread=False)},
        before_send=make_cors(settings),
        lifespan=[lifespan],
        exception_handlers={Exception: render},
        request_max_body_size=settings.max_upload_bytes,
        tags=["records"],
        openapi_config=make_openapi("records", "WAV in, MP3 link out", openapi.ABOUT, openapi.FIELDS),
        logging_config=None,
    )
