"""Makes the schema: Alembic, configured in code, and the login roles that the services use."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

# Any number will do, as long as all instances of the set-up step use the same.
ADVISORY_LOCK = 0x5741_5857
LOGIN_ROLES = {"waxwing_users_login": "waxwing_users", "waxwing_records_login": "waxwing_records"}


def make_alembic_config(connection: Connection) -> Config:
    """Alembic's configuration for a connection that is already open."""
    config = Config()
    # A lone % would be the beginning of a variable.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.attributes["connection"] = connection
    return config


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Brings the schema up to a revision, in one transaction; two at once wait for each other."""
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        await connection.run_sync(lambda sync: command.upgrade(make_alembic_config(sync), revision))


async def make_login_roles(engine: AsyncEngine, passwords: dict[str, str]) -> None:
    """Creates the login roles or renews their passwords; a dump does not hold roles, so this is no migration.

    `passwords`: a password for each of LOGIN_ROLES.
    """
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        for role, group in LOGIN_ROLES.items():
            exists = await connection.scalar(
                text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
            )
            # A utility statement takes no parameters, so PostgreSQL itself quotes them into one.
            statement = await connection.scalar(
                text("SELECT format(:template, CAST(:role AS text), CAST(:password AS text))"),
                {
                    "template": f"{'ALTER' if exists else 'CREATE'} ROLE %I LOGIN PASSWORD %L",
                    "role": role,
                    "password": passwords[role],
                },
            )
            await connection.exec_driver_sql(str(statement))
            await connection.execute(text(f"GRANT {group} TO {role}"))
