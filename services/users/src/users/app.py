"""The composition root of the users service: makes its objects in the order in which they start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
from common.requests import MAX_JSON_BYTES
from common.version import VERSION
from users import openapi
from users.routes import RunningService, get_user, post_token, post_user, remove_user
from users.settings import Settings


def create_app(settings: Settings) -> Litestar:
    """Returns the users service for these settings. It opens nothing before its lifespan begins."""

    service: RunningService

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        nonlocal service
        engine = make_engine(
            settings.database_url, settings.database_password, pool_size=settings.database_pool_size
        )
        watch_engine(engine)
        service = RunningService(engine, settings)
        yield
        await engine.dispose()

    async def check_postgres() -> None:
        await check_database(service.engine)

    # Not app.state: Litestar copies it for every request.
    def provide_service() -> RunningService:
        return service

    return Litestar(
        route_handlers=[
            Router(
                "/",
                route_handlers=with_options(post_user, get_user, post_token, remove_user),
                middleware=[HostCheck(settings)],
            ),
            *with_options(make_document_route("users")),
            *make_health_routes({"PostgreSQL": check_postgres}),
            make_metrics_route(VERSION),
        ],
        # Keep one dependency: with several, Litestar starts a task group per request.
        dependencies={"service": Provide(provide_service, sync_to_thread=False)},
        before_send=make_cors_hooks(settings),
        lifespan=[lifespan],
        exception_handlers={Exception: FailureLimit(settings.failures_per_minute).render_problem},
        request_max_body_size=MAX_JSON_BYTES,
        tags=["users"],
        openapi_config=make_openapi_config("users", "Users and their tokens", openapi.ABOUT, openapi.FIELDS),
        logging_config=None,
    )
