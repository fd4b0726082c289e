"""The connections between the processes of a stack: TCP proxies that see which step passes, and can hold it.

The steps are read from what passes anyway, SQL and S3, so the services need no hooks for the drill.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from deploy.local.ports import LOOPBACK, Ports, free_ports
from deploy.local.stack import Stack

PIECE_BYTES = 64 * 1024
# Before the request arrives; after it has arrived; and when the response would arrive.
Moment = Literal["before", "after", "response"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "response")

# The first expression that matches names the step.
SQL_STEPS = {
    "reserve": rb"^INSERT INTO records",
    "replay": rb"LEFT OUTER JOIN records",
    "sweep": rb"SKIP LOCKED|^DELETE FROM records WHERE records\.id = ANY",
    "publish": rb"^UPDATE records SET state=.*published_at=now\(\)",
    "renew lease": rb"^UPDATE records SET lease_until",
    "take key": rb"^UPDATE records .*lease_until < now\(\)",
    "delete": rb"^UPDATE records .*records\.user_id = ",
    "give up": rb"^UPDATE records SET state=|^DELETE FROM records",
    "list": rb"ORDER BY records\.created_at DESC",
    "check link": rb"^SELECT .*records\.object_key .*EXISTS",
    "sign up": rb"^INSERT INTO users",
    "delete account": rb"^UPDATE users .*deleted_at=now\(\)",
    "new token": rb"^UPDATE users SET ",
}
S3_STEPS = {
    "begin multipart": rb"^POST /[^ ]+\?uploads",
    "upload part": rb"^PUT /[^ ]+[?&]partNumber=",
    "put": rb"^PUT /",
    "complete": rb"^POST /[^ ]+\?uploadId=",
    "sweep": rb"^POST /[^ ]+\?delete|^GET /[^ ]+\?.*uploads",
    "give up": rb"^DELETE /",
    "read back": rb"^GET /[^ ?]+/[^ ?]+/",
}
STEPS = (
    *("credentials", "reserve", "encode", "renew lease", "begin multipart", "upload part", "put", "complete"),
    *("read back", "publish", "answer", "replay", "take key", "give up", "delete", "sweep"),
    *("check link", "play", "list", "sign up", "new token", "delete account"),
)

PARSE = re.compile(rb"P.{4}(__asyncpg_stmt_\w+__)\x00([^\x00]+)\x00", re.DOTALL)
BIND = re.compile(rb"B.{4}\x00(__asyncpg_stmt_\w+__)\x00", re.DOTALL)
REQUEST = re.compile(rb"(?:GET|PUT|POST|DELETE|HEAD) /[^\r\n]* HTTP/1\.1\r\n")


def find_step(expressions: dict[str, bytes], text: bytes) -> str | None:
    """Returns the step of an SQL statement or a request line."""
    text = b" ".join(text.split())
    return next((step for step, each in expressions.items() if re.search(each, text)), None)


class StepReader:
    """Finds the steps in what a client sends over one connection. This one finds none."""

    def read(self, _piece: bytes) -> str | None:
        """Returns the last step that begins in this piece."""
        return None

    def read_response(self, _piece: bytes) -> str | None:
        """Returns the step that is the response itself."""
        return None


class SqlReader(StepReader):
    """Follows asyncpg's prepared statements: Parse names a statement, and Bind executes it."""

    def __init__(self) -> None:
        self._statements: dict[bytes, str | None] = {}

    def read(self, piece: bytes) -> str | None:
        for name, sql in PARSE.findall(piece):
            self._statements[name] = find_step(SQL_STEPS, sql)
        steps = [self._statements.get(name) for name in BIND.findall(piece)]
        return steps[-1] if steps else None


class S3Reader(StepReader):
    """Reads the request lines of the records service."""

    def read(self, piece: bytes) -> str | None:
        requests = REQUEST.findall(piece)
        return find_step(S3_STEPS, requests[-1]) if requests else None


class PlayReader(StepReader):
    """Reads the requests of nginx for the bytes of a download."""

    def read(self, piece: bytes) -> str | None:
        return "play" if REQUEST.search(piece) else None


class UploadReader(StepReader):
    """Follows the uploads that nginx passes to the records service."""

    def __init__(self) -> None:
        self._is_upload = False

    def read(self, piece: bytes) -> str | None:
        if REQUEST.match(piece):
            self._is_upload = piece.startswith(b"POST /records")
            return "credentials" if self._is_upload else None
        return "encode" if self._is_upload else None

    def read_response(self, piece: bytes) -> str | None:
        return "answer" if self._is_upload and piece.startswith(b"HTTP/1.1 201") else None


class Connection:
    """One connection through a wire."""

    def __init__(self, wire: Wire, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.wire = wire
        self._writers = (client, server)
        # As the server sees it: PostgreSQL shows this port in the name of its backend.
        self.port = int(server.get_extra_info("sockname")[1])

    def cut(self) -> None:
        """Resets both sides."""
        for writer in self._writers:
            writer.transport.abort()


class Trap(NamedTuple):
    """Waits for the first of some steps at one moment."""

    steps: frozenset[str]
    moment: Moment
    act: Callable[[str, Connection], Awaitable[bool]]
    """Returns whether the bytes may pass. While it works, they wait."""
    sprung: asyncio.Future[str]


class Steps:
    """Counts the steps that pass any wire, and springs traps."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.traps: list[Trap] = []

    async def pass_by(self, step: str, moment: Moment, connection: Connection) -> bool:
        """Returns whether the bytes of this step may pass."""
        if moment == "before":
            self.passed[step] += 1
        for trap in self.traps:
            if trap.moment == moment and step in trap.steps:
                self.traps.remove(trap)
                trap.sprung.set_result(step)
                return await trap.act(step, connection)
        return True


class Wire:
    """Passes the connections between two processes on."""

    def __init__(self, steps: Steps, port: int, target: int, reader: type[StepReader] = StepReader) -> None:
        self.port = port
        self._steps = steps
        self._target = target
        self._reader = reader
        self._connections: set[Connection] = set()
        self._is_closed = False
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listens from now on."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port, limit=PIECE_BYTES)

    async def close(self) -> None:
        """Listens no longer, and cuts all connections."""
        if self._server:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cuts all connections."""
        for connection in list(self._connections):
            connection.cut()

    async def part(self, seconds: float) -> None:
        """Cuts all connections, and refuses new ones for a while."""
        self._is_closed = True
        self.cut()
        await asyncio.sleep(seconds)
        self._is_closed = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_closed:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target, limit=PIECE_BYTES)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self, writer, to_server)
        self._connections.add(connection)
        steps = self._reader()
        pending: list[str] = []
        # Without a goodbye: what one side ends or resets, ends for the other side.
        with suppress(OSError):
            pumps = (
                self._pass_requests(reader, to_server, connection, steps, pending),
                self._pass_responses(from_server, writer, connection, steps, pending),
            )
            tasks = [asyncio.create_task(pump) for pump in pumps]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for each in (writer, to_server):
            each.close()
        self._connections.discard(connection)

    async def _pass_requests(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        connection: Connection,
        steps: StepReader,
        pending: list[str],
    ) -> None:
        while piece := await source.read(PIECE_BYTES):
            step = steps.read(piece)
            if step and not await self._steps.pass_by(step, "before", connection):
                connection.cut()
                return
            target.write(piece)
            await target.drain()
            if step:
                pending[:] = [step]
                if not await self._steps.pass_by(step, "after", connection):
                    connection.cut()
                    return

    async def _pass_responses(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        connection: Connection,
        steps: StepReader,
        pending: list[str],
    ) -> None:
        while piece := await source.read(PIECE_BYTES):
            answer = steps.read_response(piece)
            if answer and not await self._steps.pass_by(answer, "before", connection):
                connection.cut()
                return
            if pending and not await self._steps.pass_by(pending.pop(), "response", connection):
                connection.cut()
                return
            target.write(piece)
            await target.drain()
            if answer and not await self._steps.pass_by(answer, "after", connection):
                connection.cut()
                return


class WiredStack(Stack):
    """A stack whose processes reach each other through wires. The set-up and the drill do not."""

    def __init__(self, folder: Path, settings: dict[str, str], steps: Steps) -> None:
        ports = Ports.free()
        super().__init__(folder, ports, settings)
        targets: dict[str, tuple[int, type[StepReader]]] = {
            "gateway-users": (ports.users, StepReader),
            "gateway-records": (ports.records, UploadReader),
            "gateway-minio": (ports.minio, PlayReader),
            "users-postgres": (ports.postgres, SqlReader),
            "records-postgres": (ports.postgres, SqlReader),
            "records-minio": (ports.minio, S3Reader),
        }
        self.wires = {
            name: Wire(steps, port, *target)
            for port, (name, target) in zip(free_ports(len(targets)), targets.items(), strict=True)
        }

    def _own_environment(self, service: str) -> dict[str, str]:
        own = super()._own_environment(service)
        if service == "setup":
            return own
        wires, ports = self.wires, self.ports
        postgres = str(wires[f"{service}-postgres"].port)
        own["DATABASE_URL"] = own["DATABASE_URL"].replace(str(ports.postgres), postgres)
        if service == "records":
            own["S3_ENDPOINT"] = f"http://{LOOPBACK}:{wires['records-minio'].port}"
        return own

    def _gateway_variables(self) -> dict[str, str]:
        wires = {name: f"{LOOPBACK}:{wire.port}" for name, wire in self.wires.items()}
        return {
            **super()._gateway_variables(),
            "WAXWING_USERS": wires["gateway-users"],
            "WAXWING_RECORDS": wires["gateway-records"],
            "WAXWING_S3": wires["gateway-minio"],
        }
