"""The drill knows each step by its SQL, so a statement that changes must not become a step without a name."""

from typing import Any

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from records import sql
from tests.chaos.wires import S3_STEPS, SQL_STEPS, STEPS, SqlReader, find_step
from users import sql as users_sql

STATEMENTS: dict[str, tuple[ClauseElement, ...]] = {
    "reserve": (sql.RESERVE,),
    "replay": (sql.FIND_EARLIER_UPLOAD,),
    "sweep": (sql.REMOVE_TOMBSTONES,),
    "publish": (sql.PUBLISH,),
    "renew lease": (sql.RENEW_LEASE,),
    "take key": (sql.GIVE_UP_WITHOUT_LEASE,),
    "keep original": (sql.KEEP_ORIGINAL,),
    "delete": (sql.DELETE_RECORD, sql.DELETE_ORIGINAL),
    "give up": (sql.GIVE_UP, sql.FORGET),
    "sign up": (users_sql.INSERT_USER,),
    "delete account": (users_sql.DELETE_USER,),
    "new token": (users_sql.RENEW_TOKEN,),
}
DIALECT: Any = PGDialect_asyncpg()  # type: ignore[no-untyped-call]
CASES = [
    (step, str(each.compile(dialect=DIALECT)))
    for step, statements in STATEMENTS.items()
    for each in statements
]
RENAME = sql.RENAME_RECORD.values(title="A title")
CASES.append(("rename", str(RENAME.compile(dialect=DIALECT))))
CASES.append(("check link", sql.FIND_RECORD.sql))
REQUESTS = {
    "begin multipart": "POST /records/user/id.mp3?uploads=",
    "upload part": "PUT /records/user/id.mp3?partNumber=2&uploadId=a",
    "put": "PUT /records/user/id.mp3",
    "complete": "POST /records/user/id.mp3?uploadId=a",
    "sweep": "POST /records?delete=",
    "give up": "DELETE /records/user/id.mp3",
    "read back": "GET /records/user/id.mp3",
}


@pytest.mark.parametrize(("step", "statement"), CASES, ids=[step for step, _ in CASES])
def test_a_statement_is_its_step(step: str, statement: str) -> None:
    assert step in STEPS
    parse = b"P\0\0\0\0__asyncpg_stmt_1__\0" + statement.encode() + b"\0\0\0"
    reader = SqlReader()
    assert reader.read(parse) is None
    assert reader.read(b"B\0\0\0\0\0__asyncpg_stmt_1__\0") == step


@pytest.mark.parametrize(("step", "request_line"), REQUESTS.items())
def test_a_request_to_the_store_is_its_step(step: str, request_line: str) -> None:
    assert find_step(S3_STEPS, request_line.encode()) == step


def test_each_step_is_listed() -> None:
    assert SQL_STEPS.keys() | S3_STEPS.keys() <= set(STEPS)
