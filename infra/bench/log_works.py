"""Cases for a server of our own: speed of its log and its projection, and stored bytes."""

import asyncio
import re
import resource
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agentlog_commands.command import Accepted
from agentlog_commands.threads import CreateThread
from agentlog_facts import guard
from agentlog_facts.envelope import Actor, Cause, Draft
from agentlog_facts.ids import Key, ThreadId
from agentlog_infra.adapters import open_adapters
from agentlog_infra.kafka.event_log import KafkaLog
from agentlog_infra.redis.verdicts import HintVerdicts
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import open_pool
from agentlog_projections.projector.ledger import Ledger
from bench.client import STEPS, Client
from bench.log_reads import count as count_log
from bench.storage import LONG, SHORT, storage
from bench.works import Case, Round, Work, repeat

VERDICT_S = 30.0
WARM_COMMITS = 50
REBUILD_COMMITS = 10_000
REBUILT = re.compile(rb"rebuilt \d+ events in [\d.]+ s, (\d+)/s")


@dataclass(frozen=True, slots=True)
class Writer:
    """The write side of a gateway: the same adapters, connected to the same servers."""

    log: KafkaLog
    verdicts: HintVerdicts

    async def write(self) -> tuple[float, float]:
        """Create a thread; return the seconds from the append to the ack, and from the ack to its rows."""
        draft = _new_thread()
        handed = time.perf_counter()
        place = await self.log.append(draft)
        acked = time.perf_counter()
        verdict = await self.verdicts.wait(place, draft.append_id, time.monotonic() + VERDICT_S)
        visible = time.perf_counter()
        if not isinstance(verdict, guard.Accepted):
            raise RuntimeError(f"a new thread was not accepted: {verdict}")
        return acked - handed, visible - acked


def _new_thread() -> Draft:
    ids, clock = SystemIds(), SystemClock()
    thread_id = ids.uuid7()
    decision = CreateThread(ThreadId(thread_id), {}).decide()
    if not isinstance(decision, Accepted):
        raise RuntimeError(f"a new thread was refused: {decision}")
    return Draft(
        key=Key(thread_id),
        stream=decision.stream,
        event_id=ids.uuid7(),
        append_id=ids.uuid7(),
        body_sha256="",
        facts=decision.facts,
        occurred_at=clock.now(),
        cause=Cause(Actor("system", "bench"), correlation_id=thread_id),
        demands=decision.demands,
    )


@asynccontextmanager
async def open_writer(settings: Settings) -> AsyncGenerator[Writer]:
    """Yield a connected writer whose clients have all been used."""
    async with AsyncExitStack() as stack:
        pool = await open_pool(settings.database_uri or "", 2)
        stack.push_async_callback(pool.close)
        adapters = await open_adapters(settings, "agentlog-bench", pool, Ledger(pool), stack)
        writer = Writer(adapters.log, adapters.verdicts)
        for _ in range(WARM_COMMITS):
            await writer.write()
        yield writer


def commits(settings: Settings, measured: Callable[[tuple[float, float]], float]) -> Work:
    """Return a work of writers that create threads on the log and wait for each verdict."""

    async def work(_: Client, clients: int, count: int) -> Round:
        async with open_writer(settings) as writer:
            took_s: list[float] = []

            async def operation() -> None:
                took_s.append(measured(await writer.write()))

            done = await repeat(operation, clients, count)
            done.took_s = took_s
            return done

    return work


def rebuild(settings: Settings) -> Work:
    """Return a work that runs `agentlog rebuild` next to the server, over at least `count` commits (= events)."""

    async def work(client: Client, _: int, count: int) -> Round:
        on_log, facts = await count_log(settings)
        while on_log < count:
            await asyncio.gather(*(_five_nodes(client) for _ in range(100)))
            on_log, facts = await count_log(settings)
        used, started = _children_cpu_s(), time.perf_counter()
        output = await _agentlog("rebuild", "--data-dir", str(settings.data_dir))
        done = Round(all_s=time.perf_counter() - started, count=on_log, cpu_s=_children_cpu_s() - used)
        done.notes |= {"commits": on_log, "facts/s": facts / done.all_s}
        if found := REBUILT.search(output):
            done.notes["without start and end of the command, commits/s"] = float(found[1])
        return done

    return work


async def _five_nodes(client: Client) -> None:
    await client.run(await client.thread(), STEPS)


def _children_cpu_s() -> float:
    """Return the CPU seconds of our children that have ended; the server under load still runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _agentlog(*words: str) -> bytes:
    """Run a command to its end and return its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "agentlog_infra.cli.main", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"agentlog {' '.join(words)}: status {process.returncode}\n{output.decode()[-2000:]}")
    return output


def log_cases(data_dir: Path, scale: float) -> list[Case]:
    """Return the cases that need the data directory of a running stack."""
    settings = joined(Settings.load({"data_dir": data_dir}))

    def times(count: int) -> int:
        return max(1, round(count * scale))

    return [
        Case("append to ack", commits(settings, lambda took: took[0]), 1, times(500), "p50 3 ms, p99 15 ms"),
        Case("append to ack", commits(settings, lambda took: took[0]), 8, times(3000), "p50 3 ms, p99 15 ms"),
        Case("ack to visible", commits(settings, lambda took: took[1]), 8, times(3000), "p99 30 ms"),
        *(
            Case(f"chat of 200 turns, {words}-word answers", storage(settings, words), 1, times(200), "stored/raw < 3")
            for words in (SHORT, LONG)
        ),
        Case("rebuild", rebuild(settings), 1, times(REBUILD_COMMITS), ">= 10000/s", at_the_end=True),
    ]
