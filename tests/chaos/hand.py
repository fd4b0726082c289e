"""The hand that disturbs a stack: kills, stops and restarts processes, cuts and delays connections."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, NamedTuple

import aiohttp
import asyncpg
import psutil
from miniopy_async.error import MinioException

from common.settings import load
from deploy.local.stack import Stack, StackError
from deploy.setup import SetupSettings, make_admin
from records.storage import make_session
from tests.chaos.wires import MOMENTS, STEPS, Connection, Moment, Steps, Trap, WiredStack

# What can be killed, and the process of the stack that supervisor restarts.
VICTIMS = {
    "users": "users",
    "records": "records",
    "gateway": "gateway",
    "gateway worker": "gateway",
    "postgres": "postgres",
    "backend": "postgres",
    "minio": "minio",
}
# How often each is chosen. A service starts slowly; then the hand could have killed others more often.
WEIGHTS = {
    "users": 1,
    "records": 2,
    "gateway": 3,
    "gateway worker": 4,
    "postgres": 3,
    "backend": 4,
    "minio": 2,
}
DEEDS = {"kill": 76, "stop": 5, "restart": 2, "cut": 6, "part": 3, "delay": 4, "expire": 3, "fill": 1}
# Between the requests of an upload and its record.
WITH_LEASE = frozenset(("reserve", "encode", "begin multipart", "upload part", "put", "complete", "publish"))
# Steps with fewer kills come first, so that rare steps get their share. A hand waits longer for them: while
# all hands wait, even a large upload comes to its last steps.
ENOUGH_KILLS = 20
PATIENCE_FOR_RARE_SECONDS = 15
# The hand waits so long for any other step. Then it acts at any moment.
PATIENCE_SECONDS = 6
NO_STEP = "(any moment)"
EXPIRE = "UPDATE records SET lease_until = now() - interval '100 s' WHERE state = 'uploading'"


class Kill(NamedTuple):
    """What was killed, and at which step and moment."""

    victim: str
    step: str
    moment: str


class Tally:
    """Counts what the hands have done."""

    def __init__(self, note: Callable[[str], None]) -> None:
        """`note` writes a line of the diary."""
        self.note = note
        self.kills: Counter[Kill] = Counter()
        self.deeds: Counter[str] = Counter()

    def count(self, **wanted: str) -> int:
        """Counts the kills of this victim, step or moment."""
        return sum(
            count
            for kill, count in self.kills.items()
            if all(getattr(kill, name) == value for name, value in wanted.items())
        )


class Hand:
    """One hand. Several work at once, and never on one process."""

    deeds: ClassVar[dict[str, int]] = DEEDS
    longest_rest_seconds = 0.5

    def __init__(
        self,
        stack: WiredStack,
        steps: Steps,
        tally: Tally,
        locks: dict[str, asyncio.Lock],
        seed: str,
        longest_stop_seconds: float,
    ) -> None:
        """All hands share `tally` and `locks`, which are by process."""
        self._stack = stack
        self._steps = steps
        self._tally = tally
        self._locks = locks
        self._name = seed
        self._random = random.Random(seed)
        self._longest_stop_seconds = longest_stop_seconds

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Acts until it is over, and leaves every process running."""
        while not is_over():
            (deed,) = self._random.choices(list(self.deeds), list(self.deeds.values()))
            await getattr(self, f"_{deed}")()
            self._note(f"{deed} is over")
            self._tally.deeds[deed] += 1
            await asyncio.sleep(self._random.uniform(0, self.longest_rest_seconds))

    def _note(self, what: str) -> None:
        self._tally.note(f"{self._name}: {what}")

    async def _kill(self) -> None:
        free = [victim for victim, process in VICTIMS.items() if not self._locks[process].locked()]
        free = free or list(VICTIMS)
        (victim,) = self._random.choices(free, [WEIGHTS[victim] for victim in free])
        process = VICTIMS[victim]
        async with self._locks[process]:
            living = await asyncio.to_thread(self._find, process)
            if not living:
                return
            moment: Moment = self._random.choice(MOMENTS)
            rare = self._choose_rare()
            # The bytes of the step pass on, or get lost with the process.
            passes = moment == "after" or self._random.random() < 0.3

            async def act(step: str, connection: Connection | None) -> bool:
                with suppress(psutil.NoSuchProcess):
                    self._choose(living, victim, connection).kill()
                self._note(f"kills {victim} at {step}, {moment}")
                self._tally.kills[Kill(victim, step, moment if connection else "")] += 1
                return passes

            if rare:
                await self._at(rare, moment, act, PATIENCE_FOR_RARE_SECONDS)
            else:
                await self._at(frozenset(STEPS), moment, act)
            await asyncio.sleep(self._random.uniform(0, 0.5))
            await self._bring_back(process, living if victim == process else None)

    def _choose_rare(self) -> frozenset[str]:
        """Returns some of the steps that lack kills: those with the fewest."""
        counts = {step: self._tally.count(step=step) for step in STEPS}
        lacking = [step for step in STEPS if counts[step] < ENOUGH_KILLS]
        return frozenset(sorted(lacking, key=lambda step: (counts[step], self._random.random()))[:4])

    async def _at(
        self,
        steps: frozenset[str],
        moment: Moment,
        act: Callable[[str, Connection | None], Awaitable[bool]],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Acts when one of these steps passes, or without a step if none passes soon."""
        trap = Trap(steps, moment, act, asyncio.get_running_loop().create_future())
        done = asyncio.Event()

        async def act_once(step: str, connection: Connection) -> bool:
            try:
                return await act(step, connection)
            finally:
                done.set()

        trap = trap._replace(act=act_once)
        self._steps.traps.append(trap)
        await asyncio.wait({trap.sprung}, timeout=patience_seconds)
        if trap.sprung.done():
            await done.wait()
        else:
            self._steps.traps.remove(trap)
            await act(NO_STEP, None)

    def _find(self, process: str) -> psutil.Process | None:
        pid = self._stack.pid(process)
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(pid) if pid else None
        return None

    def _choose(self, main: psutil.Process, victim: str, connection: Connection | None) -> psutil.Process:
        """Returns what to kill: the main process, or one of its children."""
        if victim == VICTIMS[victim]:
            return main
        children = main.children()
        if victim == "backend" and connection:
            # PostgreSQL shows the client's port in the backend's name.
            own = [each for each in children if f"({connection.port})" in " ".join(each.cmdline())]
            children = own or children
        return self._random.choice(children) if children else main

    async def _bring_back(self, process: str, killed: psutil.Process | None = None) -> None:
        """Returns when the process is ready. By itself, supervisor would make ever longer pauses."""
        self._note(f"starts {process}")
        while True:
            with suppress(StackError, RuntimeError, OSError):
                # The workers of a killed nginx work on until supervisor has noticed its end.
                if not killed or await asyncio.to_thread(self._stack.pid, process) != killed.pid:
                    await asyncio.to_thread(self._stack.start_process, process)
                    return
            await asyncio.sleep(0.05)

    def _choose_free(self) -> str:
        """Returns a process at which no other hand is, if there is one."""
        free = [process for process, lock in self._locks.items() if not lock.locked()]
        return self._random.choice(free or list(self._locks))

    async def _stop(self) -> None:
        """Stops a process with all its children for a while, by SIGSTOP."""
        process = self._choose_free()
        async with self._locks[process]:
            main = await asyncio.to_thread(self._find, process)
            if not main:
                return
            self._note(f"stops {process}")
            stopped = [main, *main.children()]
            for each in stopped:
                with suppress(psutil.NoSuchProcess):
                    each.suspend()
            # Short stops are as likely as long ones.
            longest = self._longest_stop_seconds
            await asyncio.sleep(longest ** self._random.random() if longest > 1 else longest)
            for each in stopped:
                with suppress(psutil.NoSuchProcess):
                    each.resume()

    async def _restart(self) -> None:
        """Stops a process in order, and starts it again."""
        process = self._choose_free()
        async with self._locks[process]:
            self._note(f"restarts {process}")
            with suppress(StackError, RuntimeError, OSError):
                await asyncio.to_thread(self._stack.stop_process, process)
            await self._bring_back(process)

    async def _cut(self) -> None:
        async def act(_step: str, _connection: Connection | None) -> bool:
            return False

        await self._at(self._some_steps(), self._random.choice(MOMENTS), act)

    async def _part(self) -> None:
        """Parts two processes from each other for a while."""
        wire = self._random.choice(list(self._stack.wires.values()))
        await wire.part(self._random.uniform(0, min(3, self._longest_stop_seconds)))

    async def _delay(self) -> None:
        seconds = self._random.uniform(0.1, min(12, self._longest_stop_seconds))

        async def act(_step: str, connection: Connection | None) -> bool:
            if connection:
                await asyncio.sleep(seconds)
            return True

        await self._at(self._some_steps(), self._random.choice(MOMENTS), act)

    def _some_steps(self) -> frozenset[str]:
        return frozenset(self._random.sample(STEPS, 4))

    async def _expire(self) -> None:
        """Lets the leases of all uploads under way run out, and waits until a sweeper may have seen it."""
        pause = self._random.uniform(0, 3)

        async def act(_step: str, _connection: Connection | None) -> bool:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await run_sql(self._stack, EXPIRE)
            await asyncio.sleep(pause)
            return True

        await self._at(WITH_LEASE, "before", act)

    async def _fill(self) -> None:
        """Makes the store full for a while, by a quota of the bucket."""
        await self._limit_bucket("bucket_quota_set", 1)
        self._note("the store is full")
        await asyncio.sleep(self._random.uniform(0.5, 5))
        await self._limit_bucket("bucket_quota_clear")

    async def _limit_bucket(self, method: str, *limit: int) -> None:
        """Calls MinIO's admin interface until it succeeds, because another hand may have killed MinIO."""
        setup = load(SetupSettings, self._stack.environment("setup"))
        while True:
            with suppress(aiohttp.ClientError, MinioException, OSError, TimeoutError):
                async with make_session() as session, asyncio.timeout(10):
                    await getattr(make_admin(setup, session), method)(setup.store.s3_bucket, *limit)
                    return
            await asyncio.sleep(0.2)


async def run_sql(stack: Stack, statement: str) -> list[asyncpg.Record]:
    """Runs a statement as the superuser, on a connection that no wire has."""
    address = stack.environment("setup")
    async with asyncio.timeout(10):
        connection = await asyncpg.connect(address["DATABASE_URL"], password=address["POSTGRES_PASSWORD"])
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()
