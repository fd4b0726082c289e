"""Creates and upgrades the schema with Alembic, and creates the login roles of the services."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

# An arbitrary number. All instances of the set-up step must use the same number.
ADVISORY_LOCK = 0x5741_5857
# Alembic would take a single % as the beginning of a variable.
MIGRATIONS = str(Path(__file__).parent / "migrations").replace("%", "%%")
LOGIN_ROLES = {"waxwing_users_login": "waxwing_users", "waxwing_records_login": "waxwing_records"}


def make_alembic_config(connection: Connection) -> Config:
    """Returns Alembic's configuration for a connection that is already open."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.attributes["connection"] = connection
    return config


def known_revisions() -> set[str]:
    """Returns the revisions of the schema that this version can upgrade, or has itself."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    return {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


async def migrate(engine: AsyncEngine, revision: str = "head") -> None:
    """Upgrades the schema to a revision in one transaction. Waits while another instance upgrades it."""
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        await connection.run_sync(lambda sync: command.upgrade(make_alembic_config(sync), revision))


async def make_login_roles(engine: AsyncEngine, passwords: dict[str, str]) -> None:
    """Creates the login roles, or sets their passwords if they exist.

    This is no migration, because a dump of the database does not hold roles.
    `passwords`: a password for each name in LOGIN_ROLES.
    """
    async with engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        for role, group in LOGIN_ROLES.items():
            exists = await connection.scalar(
                text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
            )
            # CREATE ROLE and ALTER ROLE take no parameters, so PostgreSQL's format() quotes the values.
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
