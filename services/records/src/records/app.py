"""The composition root of the records service: makes its objects in the order in which they start."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import structlog
from litestar import Litestar, Router
from litestar.di import Provide

from common.cors import make_cors_hooks
from common.db import check_database, make_engine
from common.failures import FailureLimit
from common.health import make_health_routes
from common.hosts import HostCheck
from common.methods import with_options
from common.metrics import make_metrics_route, watch_engine
from common.openapi import make_document_route, make_openapi_config
from common.version import VERSION
from records import openapi
from records.memory import fit_to_memory, read_memory_limit
from records.metrics import MAX_STORED_BYTES
from records.routes import HANDLERS, RunningService, with_pages
from records.row_reader import RowReader
from records.settings import Settings
from records.storage import open_store
from records.sweeper import run_sweeper
from records.uploads import Uploads

log = structlog.get_logger()


def create_app(settings: Settings) -> Litestar:
    """Returns the records service for these settings. It opens nothing before its lifespan begins.

    Raises SettingsError if the container's memory limit is too low for an upload.
    """
    fitted = fit_to_memory(settings, read_memory_limit())
    if fitted != settings:
        log.warning("the memory limit allows fewer uploads at once", max_uploads=fitted.max_uploads)
    settings = fitted
    service: RunningService

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal service
        engine = make_engine(
            settings.database_url, settings.database_password, pool_size=settings.database_pool_size
        )
        watch_engine(engine)
        MAX_STORED_BYTES.set(settings.max_total_bytes or math.inf)
        async with aclosing(RowReader(engine)) as reader, open_store(settings.store) as store:
            uploads = Uploads(engine, store, settings)
            uploads.watch()
            sweeper = asyncio.create_task(run_sweeper(engine, store, settings))
            service = RunningService(engine, reader, store, uploads, settings)
            try:
                yield
            finally:
                sweeper.cancel()
                with suppress(asyncio.CancelledError):
                    await sweeper
                await uploads.close()
                await engine.dispose()

    async def check_postgres() -> None:
        await check_database(service.engine)

    async def check_store() -> None:
        await service.store.check()

    # Not app.state: Litestar copies it for every request.
    def provide_service() -> RunningService:
        return service

    return Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=with_options(*HANDLERS),
                middleware=[HostCheck(settings)],
            ),
            *with_options(make_document_route("records")),
            *make_health_routes({"PostgreSQL": check_postgres, "object store": check_store}),
            make_metrics_route(VERSION),
        ],
        # Keep one dependency: with several, Litestar starts a task group per request.
        dependencies={"service": Provide(provide_service, sync_to_thread=False)},
        before_send=make_cors_hooks(settings, openapi.EXPOSED_RESPONSE_HEADERS),
        lifespan=[lifespan],
        exception_handlers={Exception: with_pages(FailureLimit(settings.failures_per_minute).render_problem)},
        request_max_body_size=settings.max_upload_bytes,
        tags=["records"],
        openapi_config=make_openapi_config(
            "records", "WAV in, MP3 link out", openapi.ABOUT, openapi.FIELDS, openapi.COMPONENTS
        ),
        logging_config=None,
    )
