"""`python -m deploy.setup` creates schema, login roles, bucket and bucket key. It may run again at any time.

Only the set-up has the credentials of the owners of PostgreSQL and MinIO. The services never have them.
"""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import msgspec
import structlog
from miniopy_async.api import Minio
from miniopy_async.credentials.providers import StaticProvider
from miniopy_async.error import MinioAdminException, MinioException, S3Error
from miniopy_async.minioadmin import MinioAdmin
from sqlalchemy.exc import SQLAlchemyError

from common.db import make_engine
from common.host_names import SignUp, choose_sign_up, public_hosts
from common.logs import configure_logs
from common.migrate import MIGRATION_TIMEOUT_SECONDS, make_login_roles, migrate
from common.poolers import refuse_pooler
from common.servers import Servers
from common.settings import PublicUrl, SettingsError, load
from deploy.gateway_settings import GatewaySettings
from records.settings import StoreSettings
from records.storage import make_client, make_session

log = structlog.get_logger()

# Every default secret in docker-compose.yml begins with this.
LAPTOP_SECRET = "laptop-"  # noqa: S105


class SetupSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The owners' credentials, and the credentials that the set-up creates for the services."""

    store: StoreSettings
    gateway: GatewaySettings
    public_url: PublicUrl = ""
    allowed_hosts: str = ""
    # The services read both; the set-up checks them, and says who may sign up.
    signup: SignUp | None = None
    signup_key: str = ""
    # The URL names the owner of the schema, and the password belongs to that owner.
    database_url: str
    postgres_password: str
    users_database_password: str
    records_database_password: str
    # MinIO's root creates the bucket and its key. Without root credentials both must exist already.
    minio_root_user: str = ""
    minio_root_password: str = ""


def refuse_laptop_secrets(settings: SetupSettings) -> None:
    """Raises SettingsError if a configured host is not local and a secret in use still has its default."""
    public = public_hosts(settings.public_url, settings.allowed_hosts)
    secrets = msgspec.structs.asdict(settings) | msgspec.structs.asdict(settings.store)
    if _sign_up(settings) != "key":
        del secrets["signup_key"]
    defaults = [name.upper() for name, value in secrets.items() if str(value).startswith(LAPTOP_SECRET)]
    if public and defaults:
        raise SettingsError(
            f"{public[0]} (in PUBLIC_URL or ALLOWED_HOSTS) is not local, but {', '.join(defaults)}"
            " still has the default, which everybody can read in docker-compose.yml: choose your own secret"
        )


def say_who_may_sign_up(settings: SetupSettings) -> None:
    """Logs the setting SIGNUP, or what counts without it."""
    public = public_hosts(settings.public_url, settings.allowed_hosts)
    reason = f"{public[0]} is public" if public else "no configured host is public"
    log.info("sign-up", signup=_sign_up(settings), reason="the setting SIGNUP" if settings.signup else reason)


def _sign_up(settings: SetupSettings) -> SignUp:
    return choose_sign_up(settings.signup, settings.public_url, settings.allowed_hosts)


async def set_up(settings: SetupSettings) -> None:
    """Creates schema, login roles, bucket and bucket key, in this order."""
    await refuse_pooler(Servers(settings.database_url, settings.postgres_password), "the set-up")
    engine = make_engine(settings.database_url, settings.postgres_password, MIGRATION_TIMEOUT_SECONDS)
    try:
        await migrate(engine)
        await make_login_roles(
            engine,
            {
                "waxwing_users_login": settings.users_database_password,
                "waxwing_records_login": settings.records_database_password,
            },
        )
    finally:
        await engine.dispose()
    log.info("schema and login roles are there")
    async with make_session() as session:
        root = {"access_key": settings.minio_root_user, "secret_key": settings.minio_root_password}
        client = make_client(settings.store, session, **(root if settings.minio_root_user else {}))
        await make_bucket(client, settings.store.s3_bucket)
        if settings.minio_root_user:
            await _make_bucket_key_at_any_node(settings, session)
    log.info("bucket is there", key="made" if settings.minio_root_user else "given")


async def make_bucket(client: Minio, name: str) -> None:
    """Creates the bucket unless it is there."""
    if await client.bucket_exists(name):
        return
    try:
        await client.make_bucket(name)
    except S3Error as error:
        # A node can create the bucket and nevertheless fail, and then another node is asked.
        if error.code != "BucketAlreadyOwnedByYou":
            raise


async def _make_bucket_key_at_any_node(settings: SetupSettings, session: aiohttp.ClientSession) -> None:
    """Creates the key at the first node that is there. MinIO tells the others."""
    *firsts, last = settings.store.endpoints
    for node in firsts:
        with suppress(aiohttp.ClientError, MinioAdminException):
            return await make_bucket_key(make_admin(settings, session, node), settings)
    return await make_bucket_key(make_admin(settings, session, last), settings)


def make_admin(settings: SetupSettings, session: aiohttp.ClientSession, node: str = "") -> MinioAdmin:
    """Returns a client of MinIO's administration at a node, or at the first one, as MinIO's root user."""
    endpoint = urlsplit(node or settings.store.endpoints[0])
    provider = StaticProvider(settings.minio_root_user, settings.minio_root_password)
    secure = endpoint.scheme == "https"
    return MinioAdmin(endpoint.netloc, provider, settings.store.s3_region, secure, session=session)


async def make_bucket_key(admin: MinioAdmin, settings: SetupSettings) -> None:
    """Creates the key of the records service, or renews its secret.

    The key allows nothing outside the bucket.
    """
    name = f"waxwing-{settings.store.s3_bucket}"
    # The library reads policies only from files.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(make_policy(settings.store.s3_bucket), file)
        file.flush()
        await admin.policy_add(name, file.name)
    await admin.user_add(settings.store.s3_access_key, settings.store.s3_secret_key)
    await admin.policy_set(name, user=settings.store.s3_access_key)


def make_policy(bucket: str) -> dict[str, object]:
    """Returns the S3 policy with the least rights that the records service needs."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            },
            # Without this line MinIO lets every key make further keys for itself, which outlive a new secret.
            {"Effect": "Deny", "Action": ["admin:*"]},
            # MinIO also lets every key make temporary keys (AssumeRole), which outlive a new secret. Without
            # this statement they could do what the key can.
            {
                "Effect": "Deny",
                "Action": ["s3:*"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                "Condition": {"StringEquals": {"aws:principaltype": ["AssumedRole"]}},
            },
        ],
    }


def main(environ: Mapping[str, str]) -> None:
    """Runs the set-up. Raises SystemExit with one line that says why it failed."""
    try:
        settings = load(SetupSettings, environ)
        refuse_laptop_secrets(settings)
        say_who_may_sign_up(settings)
        asyncio.run(set_up(settings))
    except SettingsError as error:
        sys.exit(f"waxwing: wrong setting: {error}")
    except (
        *(asyncpg.PostgresError, SQLAlchemyError),
        *(aiohttp.ClientError, MinioException, MinioAdminException),
        OSError,
    ) as error:
        # The first line is enough: behind it SQLAlchemy puts the statement.
        reason, _, _ = str(error).partition("\n")
        sys.exit(f"waxwing: the set-up failed: {type(error).__name__}: {reason}")


if __name__ == "__main__":
    configure_logs("INFO")
    main(os.environ)
