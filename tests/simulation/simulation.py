"""One simulated day from one seed: processes on a bad network, faults, a quiet time, and the verdict of the oracle."""

import asyncio
import gc
import logging
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

from tests.simulation.clients import Client, Gateway, Notes, draw_requests
from tests.simulation.fake_log import Broker
from tests.simulation.fake_postgres import Connection, Pool, Postgres
from tests.simulation.fake_redis import Redis
from tests.simulation.fake_sql import understand
from tests.simulation.loop import Process, SimLoop, passes
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import CALM, Network, Weather
from tests.simulation.oracle import attempts, differences, story, told, violations
from tests.simulation.roles import ROLES, Broken, SimulationEnv, projector

from agentlog_facts.ids import ThreadId

PEACE_S = 90.0
"""The time after the last fault within which everything must have ended."""
LOOK_S = 0.25


@dataclass(frozen=True)
class Day:
    """Result of a seed; the same seed gives the same `digest` on every machine and in every process.

    `digest` contains the drawn values, so that two seeds never share it; `story` contains only their effects.
    """

    seed: int
    digest: str
    story: str
    violations: tuple[str, ...]
    steps: int
    records: int
    runs: int
    lasted_s: float
    faults: Counter[str]
    effects: Counter[str]
    verdicts: Counter[str]
    """Number of verdicts, void ones by reason."""
    lines: tuple[str, ...] = ()


def simulate(seed: int, *, keep_lines: bool = False) -> Day:
    """Simulate one day."""
    chance = Random(seed)
    loop = SimLoop(chance)
    env = _env(loop, chance, keep_lines)
    collecting = gc.isenabled()
    gc.disable()  # the garbage collector would end generators at times of its own
    level, hearing = logging.root.manager.disable, _Hearing(env)
    logging.disable(logging.WARNING)
    logging.root.addHandler(hearing)
    try:
        with patch("asyncpg.connect", _connecting(env)), patch("asyncpg.create_pool", _pooling(env)):
            return _lived(seed, env)
    finally:
        logging.root.removeHandler(hearing)
        logging.disable(level)
        if collecting:
            gc.enable()


class _Hearing(logging.Handler):
    """Collects errors that the product logged with a traceback; none is expected."""

    def __init__(self, env: SimulationEnv) -> None:
        super().__init__(logging.ERROR)
        self._env = env

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, Broken) and not self._env.network.over:
            self._env.failures.append(f"{record.getMessage()}: {error!r}")


def _env(loop: SimLoop, chance: Random, keep_lines: bool) -> SimulationEnv:
    network = Network(loop, chance, keep_lines=keep_lines)
    broker = Broker(network, partitions=1 + int(chance.random() * 2))
    return SimulationEnv(loop, chance, network, broker, Postgres(network, understand), Redis(network))


def _connecting(env: SimulationEnv) -> object:
    async def connect(uri: str, **settings: object) -> Connection:
        server_settings: Any = settings["server_settings"]  # Any: of asyncpg
        return await env.postgres_of(uri).connect(durable=server_settings.get("synchronous_commit") != "off")

    return connect


def _pooling(env: SimulationEnv) -> object:
    async def create_pool(uri: str, **settings: object) -> Pool:
        return Pool(env.postgres_of(uri), checked=settings["init"] is not None)

    return create_pool


def _lived(seed: int, env: SimulationEnv) -> Day:
    day = _Living(env)
    env.loop.run_until_complete(day.live())
    network = env.network
    network.note("end", env.loop.steps, network.calls, env.chance.random())
    wrong = [
        *day.stuck,
        *env.loop.failures,
        *env.loop.unretrieved(),
        *env.failures,
        *violations(env, day.notes),
        *differences(env.postgres, env.anew),
    ]
    found = Day(
        seed=seed,
        digest=network.digest(),
        story=story(env.broker),
        violations=tuple(wrong),
        steps=env.loop.steps,
        records=sum(map(len, env.broker.records)),
        runs=len(env.postgres.tables["read_v1.runs"]),
        lasted_s=env.loop.time(),
        faults=day.nemesis.done,
        effects=env.network.effects + attempts(env.broker),
        verdicts=Counter(map(told, env.postgres.tables["ledger.log_index"].values())),
        lines=tuple(network.lines),
    )
    day.end()
    return found


class _Living:
    """The processes of a day."""

    def __init__(self, env: SimulationEnv) -> None:
        self._env = env
        self.notes = Notes()
        self.stuck: list[str] = []
        self._gateways: dict[str, Gateway] = {}
        self._processes: list[Process] = []
        self.nemesis = Nemesis(env, self._start)

    async def live(self) -> None:
        """Start all processes, clients and faults, then wait until everything has ended."""
        env, chance = self._env, self._env.chance
        env.network.weather = self._weather()
        for role in ("projector", "projector", "worker", "worker", "housekeeper", "gateway", "gateway"):
            self.nemesis.add(role)
        threads = [ThreadId(f"t{number}") for number in range(1 + int(chance.random() * 3))]
        clients = [self._client(f"client-{number}", threads) for number in range(2 + int(chance.random() * 3))]
        await self.nemesis.inject_faults()
        env.network.weather = CALM
        for asking in clients:
            await asking
        await self._come_to_an_end()
        await self._fold_anew()

    def _weather(self) -> Weather:
        chance = self._env.chance
        if chance.random() < 0.1:
            return CALM
        return Weather(
            usual_s=0.002 + 0.02 * chance.random() ** 3,
            bad_s=0.2 + 2.5 * chance.random(),
            bad=0.1 * chance.random() ** 2,
            broken=0.1 * chance.random() ** 2,
            doubled=0.2 * chance.random() ** 2,
            lost=0.4 * chance.random() ** 2,
        )

    def _start(self, role: str, process: Process) -> None:
        self._processes.append(process)
        if role == "gateway":
            gateway = Gateway(self._env, self.notes, process)
            self._gateways[process.name.partition("/")[0]] = gateway
            self._env.loop.start(process, gateway.live(self._env, process))
        else:
            self._env.loop.start(process, ROLES[role](self._env, process))

    def _client(self, name: str, threads: list[ThreadId]) -> asyncio.Task[None]:
        process = Process(name)
        self._processes.append(process)
        client = Client(self._env, self.notes, lambda: list(self._gateways.values()), process)
        asked = draw_requests(self._env, threads, name, 5)
        return self._env.loop.start(process, client.ask_all(asked, 2.0 * self._env.chance.random()))

    async def _come_to_an_end(self) -> None:
        until = self._env.loop.time() + PEACE_S
        while not self._is_over():
            if self._env.loop.time() > until:
                self.stuck.append(f"not over {PEACE_S} s after the last fault")
                return
            await passes(LOOK_S)

    def _is_over(self) -> bool:
        postgres, broker = self._env.postgres, self._env.broker
        runs = postgres.tables["read_v1.runs"].values()
        active = any(run["status"] in ("pending", "running") and not run["deleted"] for run in runs)
        return _folded(postgres, broker) == _ends(broker) and not active and not broker.unsynced

    async def _fold_anew(self) -> None:
        """Fold the log from its first record into separate rows, for a comparison."""
        env = self._env
        process = Process("anew")
        self._processes.append(process)
        env.loop.start(process, projector(env.folding_anew(), process))
        until = env.loop.time() + PEACE_S
        while not self._is_over() or _folded(env.anew, env.broker) != _ends(env.broker):
            if env.loop.time() > until:
                self.stuck.append(f"folding anew is not over after {PEACE_S} s: {_folded(env.anew, env.broker)}")
                return
            await passes(LOOK_S)

    def end(self) -> None:
        """Continue every process and stop it."""
        self._env.network.over = True
        for process in self._processes:
            process.kill_in_calls = 0
            self._env.loop.revive(process)
        self._env.loop.end()


def _folded(postgres: Postgres, broker: Broker) -> dict[int, object]:
    rows = postgres.tables["ledger.positions"]
    return {number: rows[number]["next_offset"] if number in rows else 0 for number in range(broker.partitions)}


def _ends(broker: Broker) -> dict[int, object]:
    return {number: len(records) for number, records in enumerate(broker.records)}
