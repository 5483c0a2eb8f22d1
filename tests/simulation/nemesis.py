"""Fault injector of a simulated day: deaths at any call, paused processes, dying servers, lost links."""

from collections import Counter
from collections.abc import Callable

from tests.simulation.loop import Process, passes
from tests.simulation.roles import SimulationEnv

SERVERS = ("broker", "postgres", "redis")
WORK_LOOKS, WORK_LOOK_S = 20, 0.05


class Nemesis:
    """Restarts one process per place, and injects faults until it stops."""

    def __init__(self, env: SimulationEnv, start: Callable[[str, Process], None]) -> None:
        self._env = env
        self._begin = start
        self._places: dict[str, tuple[str, Process]] = {}
        self.done: Counter[str] = Counter()
        self._at_work = True

    def add(self, role: str) -> None:
        """Start a process of a role at a new place."""
        self._start(role, f"{role}-{sum(one == role for one, _ in self._places.values())}")

    def _start(self, role: str, place: str, life: int = 0) -> None:
        skew_s = (self._env.chance.random() - 0.5) * 2.0
        process = Process(f"{place}/{life}", skew_s)
        self._places[place] = (role, process)
        process.on_death.append(lambda: self._died(role, place, process, life))
        self._begin(role, process)

    def _died(self, role: str, place: str, process: Process, life: int) -> None:
        """Close the sessions of a dead process and start another one."""
        env = self._env
        for pid, session in list(env.postgres.sessions.items()):
            if session.process is process:
                env.network.later(env.network.delay_s(), lambda pid=pid: env.postgres.close(pid))  # type: ignore[misc]  # bound now
        if not env.network.over:
            env.network.later(0.1 + 2 * env.chance.random(), lambda: self._start(role, place, life + 1))

    async def inject_faults(self) -> None:
        """Inject some faults, undo them, and stop."""
        env, chance = self._env, self._env.chance
        harms = int(chance.random() * 8)
        for _ in range(harms):
            await passes(1.2 * chance.random())
            if chance.random() < 0.5:
                await self._somebody_works()
            self._harm()
        await passes(1.0)
        for _, process in self._places.values():
            process.kill_in_calls = 0  # a paused process continues by itself
        env.network.cut_off.clear()
        env.broker.crash_in_takes = 0
        for server in (env.broker, env.postgres, env.redis):
            server.start()

    async def _somebody_works(self) -> None:
        """Wait until a run is executed, for a limited time."""
        for _ in range(WORK_LOOKS):
            if any(run["status"] == "running" for run in self._env.postgres.tables["read_v1.runs"].values()):
                return
            await passes(WORK_LOOK_S)

    def _harm(self) -> None:
        chance = self._env.chance
        harm = HARMS[int(chance.random() * len(HARMS))]
        self.done[harm.__name__] += 1
        harm(self)

    def _somebody(self) -> Process:
        places = sorted(self._places)
        return self._places[places[int(self._env.chance.random() * len(places))]][1]

    def kill(self) -> None:
        """Kill a process."""
        process = self._somebody()
        self._env.network.note("kill", process.name)
        if process.alive:
            self._env.loop.kill(process)

    def kill_at_a_call(self) -> None:
        """Make a process die after a random number of further requests."""
        process = self._somebody()
        process.kill_in_calls = 1 + int(self._env.chance.random() * 12)

    def stand_still(self) -> None:
        """Pause a process, for a time longer or shorter than its lease."""
        process, length_s = self._somebody(), 8.0 * self._env.chance.random() ** 2
        self._env.network.note("stands still", process.name, length_s)
        self._env.loop.pause(process)
        self._env.network.later(length_s, lambda: self._env.loop.resume(process))

    def outlive_a_lease(self) -> None:
        """Pause a worker for longer than its leases, then continue it."""
        workers = [process for role, process in self._places.values() if role == "worker"]
        process = workers[int(self._env.chance.random() * len(workers))]
        length_s = 5.0 + 3.0 * self._env.chance.random()
        self._env.network.note("outlives its leases", process.name, length_s)
        self._env.loop.pause(process)
        self._env.network.later(length_s, lambda: self._env.loop.resume(process))

    def crash_broker(self) -> None:
        """Kill the broker, now or with one of the next records unsynced."""
        if self._env.chance.random() < 0.3:
            self._env.broker.crash()
        else:
            self._env.broker.crash_in_takes = 1 + int(self._env.chance.random() * 4)

    def crash_postgres(self) -> None:
        """Kill PostgreSQL."""
        self._env.postgres.crash()
        self._env.network.later(2 * self._env.chance.random(), self._env.postgres.start)

    def crash_redis(self) -> None:
        """Kill Redis with all its contents."""
        self._env.redis.crash()
        self._env.network.later(4 * self._env.chance.random(), self._env.redis.start)

    def flush_redis(self) -> None:
        """Empty Redis."""
        self._env.redis.flush()

    def cut_a_link(self) -> None:
        """Cut the link between a process and a server."""
        env, process = self._env, self._somebody()
        link = (process.name, SERVERS[int(env.chance.random() * len(SERVERS))])
        env.network.note("cut off", *link)
        env.network.cut_off.add(link)
        env.network.later(4 * env.chance.random(), lambda: env.network.cut_off.discard(link))

    def end_a_session(self) -> None:
        """End a session as PostgreSQL does for a client that it takes for dead, without notice to the client."""
        sessions = list(self._env.postgres.sessions)
        if sessions:
            self._env.postgres.close(sessions[int(self._env.chance.random() * len(sessions))])


Harm = Callable[[Nemesis], None]
HARMS: tuple[Harm, ...] = (
    Nemesis.kill,
    Nemesis.kill_at_a_call,
    Nemesis.kill_at_a_call,
    Nemesis.stand_still,
    Nemesis.outlive_a_lease,
    Nemesis.outlive_a_lease,
    Nemesis.crash_broker,
    Nemesis.crash_postgres,
    Nemesis.crash_redis,
    Nemesis.flush_redis,
    Nemesis.cut_a_link,
    Nemesis.end_a_session,
)
