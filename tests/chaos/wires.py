"""The connections between the processes of a stack: TCP proxies that see which step passes, and can hold it.

The steps are read from what passes anyway, SQL and S3, so the services need no hooks for the drill.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple

from deploy.local.gateway import list_servers
from deploy.local.ports import LOOPBACK, Ports, free_ports
from deploy.local.stack import Stack

PIECE_BYTES = 64 * 1024
# Before the request arrives; after it has arrived; and when the response would arrive.
Moment = Literal["before", "after", "response"]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MOMENTS: tuple[Moment, ...] = ("before", "after", "response")

# The first expression that matches names the step.
SQL_STEPS = {
    "reserve": rb"^INSERT INTO records",
    "replay": rb"LEFT OUTER JOIN records",
    "sweep": rb"SKIP LOCKED|^DELETE FROM records WHERE records\.id = ANY",
    "publish": rb"^UPDATE records SET state=.*published_at=now\(\)",
    "renew lease": rb"^UPDATE records SET lease_until",
    "keep original": rb"^UPDATE records SET keep_original",
    "take key": rb"^UPDATE records .*lease_until < now\(\)",
    "rename": rb"^UPDATE records SET title=",
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
    "put waveform": rb"^PUT /[^ ]+[.]waveform",
    "put": rb"^PUT /",
    "complete": rb"^POST /[^ ]+\?uploadId=",
    "sweep": rb"^POST /[^ ]+\?delete|^GET /[^ ]+\?.*uploads",
    "give up": rb"^DELETE /",
    "read waveform": rb"^GET /[^ ]+[.]waveform",
    "read back": rb"^GET /[^ ?]+/[^ ?]+/",
}
STEPS = (
    *("credentials", "reserve", "keep original", "encode", "renew lease"),
    *(
        "begin multipart",
        "upload part",
        "put",
        "put waveform",
        "complete",
        "read back",
        "publish",
        "respond",
        "replay",
        "take key",
        "give up",
        "rename",
        "delete",
        "sweep",
    ),
    *("check link", "play", "read waveform", "list", "sign up", "new token", "delete account"),
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
        return "respond" if self._is_upload and piece.startswith(b"HTTP/1.1 201") else None


class Connection:
    """One connection through a wire."""

    def __init__(self, steps: Steps, reader: StepReader, client: Stream, server: Stream) -> None:
        self._steps = steps
        self._reader = reader
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._step_without_response: str | None = None
        # As the server sees it: PostgreSQL shows this port in the name of its backend.
        self.port = int(self._to_server.get_extra_info("sockname")[1])

    def cut(self) -> None:
        """Resets both sides."""
        for writer in (self._to_client, self._to_server):
            writer.transport.abort()

    async def run(self) -> None:
        """Passes everything on until one side ends the connection, or a trap cuts it."""
        tasks = [asyncio.create_task(pump()) for pump in (self._pass_requests, self._pass_responses)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        # What one side resets ends for the other side, too.
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in (self._to_client, self._to_server):
            writer.close()

    async def _pass_requests(self) -> None:
        while piece := await self._from_client.read(PIECE_BYTES):
            step = self._reader.read(piece)
            if not await self._may_pass(step, "before"):
                return
            self._to_server.write(piece)
            await self._to_server.drain()
            self._step_without_response = step or self._step_without_response
            if not await self._may_pass(step, "after"):
                return

    async def _pass_responses(self) -> None:
        while piece := await self._from_server.read(PIECE_BYTES):
            step = self._reader.read_response(piece)
            requested, self._step_without_response = self._step_without_response, None
            if not await self._may_pass(step, "before") or not await self._may_pass(requested, "response"):
                return
            self._to_client.write(piece)
            await self._to_client.drain()
            if not await self._may_pass(step, "after"):
                return

    async def _may_pass(self, step: str | None, moment: Moment) -> bool:
        if not step or await self._steps.pass_by(step, moment, self):
            return True
        self.cut()
        return False


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

    def __init__(self, steps: Steps, port: int, target: int, make_reader: type[StepReader]) -> None:
        self.port = port
        self._steps = steps
        self._target = target
        self._make_reader = make_reader
        self._connections: set[Connection] = set()
        self._is_parted = False
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
        self._is_parted = True
        self.cut()
        await asyncio.sleep(seconds)
        self._is_parted = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_parted:
                raise ConnectionRefusedError
            server = await asyncio.open_connection(LOOPBACK, self._target, limit=PIECE_BYTES)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(self._steps, self._make_reader(), (reader, writer), server)
        self._connections.add(connection)
        await connection.run()
        self._connections.discard(connection)


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

    def _own_environment(self, service: str, process: str = "") -> dict[str, str]:
        own = super()._own_environment(service, process)
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
            "WAXWING_USERS_SERVERS": list_servers([wires["gateway-users"]]),
            "WAXWING_RECORDS_SERVERS": list_servers([wires["gateway-records"]]),
            "WAXWING_S3_SERVERS": list_servers([wires["gateway-minio"]], with_backups=False),
        }
