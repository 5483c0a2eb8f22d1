"""The supervisor of all role processes: concurrent start, restart, and stop in a fixed order."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from agentlog_facts.errors import AgentlogError
from agentlog_infra import timeouts
from agentlog_infra.process.restart_budget import LIMIT, RestartBudget
from agentlog_infra.supervisor.forkserver import ForkServer
from agentlog_infra.supervisor.role import DeathHook, Role, RoleSpec, end_old_roles

log = logging.getLogger(__name__)

GATEWAY_MODULE = "agentlog_gateway"
PROCESSORS_MODULE = "agentlog_processors"


def role_specs(workers: int, grace_secs: float, spares: int = 0) -> tuple[tuple[RoleSpec, ...], ...]:
    """Return all roles of one machine, in the order they stop: no new requests, then no new work, then the rest.

    The projector stops last: workers that finish or give back their runs need its verdicts. `spares` are temporary
    workers for the runs of workers that died; each executes one run at a time.
    """
    gateway = RoleSpec(
        "gateway", GATEWAY_MODULE, stop_secs=timeouts.GATEWAY_STOP_S, loads_graphs=True, preload=f"{GATEWAY_MODULE}.app"
    )
    worker = RoleSpec(
        "worker-1",
        PROCESSORS_MODULE,
        ("worker",),
        executes_runs=True,
        stop_secs=grace_secs + timeouts.WORKER_STOP_S,
        loads_graphs=True,
        preload=f"{PROCESSORS_MODULE}.main",
    )
    spare = replace(worker, arguments=("spare", "--leave-when-idle"), temporary=True)
    executing = (
        *(replace(worker, name=f"worker-{number}") for number in range(1, workers + 1)),
        *(replace(spare, name=f"spare-{number}") for number in range(1, spares + 1)),
    )
    duties = "projector,housekeeper"
    light = RoleSpec(duties, PROCESSORS_MODULE, (duties,), preload=f"{PROCESSORS_MODULE}.main")
    return (gateway,), executing, (light,)


class Supervisor:
    """Supervises role processes, in `stages` that stop one after the other; each has a restart budget of its own.

    Entering the context begins to load their code; `start` starts them, but temporary roles only after a worker died;
    `stop` stops them in order. `restarts` is the limit of restarts in a minute for a role without user code.
    """

    def __init__(self, stages: Sequence[Sequence[RoleSpec]], notes: Path, restarts: int = LIMIT) -> None:
        self._notes = notes
        self._forkserver = ForkServer([spec.preload for stage in stages for spec in stage if spec.preload])
        self.stages = [
            [Role(spec, self._forkserver, notes, RestartBudget(restarts)) for spec in stage] for stage in stages
        ]
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._temporary: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._lost_workers: list[str] = []

    @property
    def roles(self) -> list[Role]:
        """Return all roles."""
        return [role for stage in self.stages for role in stage]

    async def __aenter__(self) -> Self:
        """Kill the roles of an earlier start whose supervisor was killed; begin to load the code of all roles."""
        self._lost_workers = await end_old_roles(self._notes)
        await self._forkserver.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all processes that still run."""
        self.kill()
        await self.stop()
        await self._forkserver.stop()

    async def start(self, environment: Mapping[str, str], on_worker_death: DeathHook) -> None:
        """Start all roles with these variables; return when all are ready.

        Raises: Misconfigured, RoleCrashes or Unavailable of the first role that cannot run; then all are stopped.
        """
        for worker_id in self._lost_workers:
            await on_worker_death(worker_id)

        async def on_death(worker_id: str) -> None:
            await on_worker_death(worker_id)
            self._start_temporary(environment, on_death)

        self._tasks = {
            role.spec.name: asyncio.create_task(role.run(environment, on_death), name=role.spec.name)
            for role in self.roles
            if not role.spec.temporary
        }
        ready = asyncio.create_task(self._all_ready())
        try:
            await asyncio.wait([ready, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            self._raise_failed()
            if self._lost_workers:
                self._start_temporary(environment, on_death)
        except BaseException:
            self.kill()
            await self.stop()
            raise
        finally:
            ready.cancel()

    def _start_temporary(self, environment: Mapping[str, str], on_death: DeathHook) -> None:
        """Start the temporary roles that do not run."""
        for role in self.roles:
            name = role.spec.name
            running = name in self._temporary and not self._temporary[name].done()
            if role.spec.temporary and not running and not self._stopping:
                self._temporary[name] = asyncio.create_task(_run_temporary(role, environment, on_death), name=name)

    async def wait_failed(self) -> None:
        """Wait until a role cannot be kept running. Raises: Misconfigured, RoleCrashes, Unavailable."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        self._raise_failed()

    async def reload(self) -> None:
        """Replace, in order, the roles that load graphs."""
        ended = {name for name, task in self._temporary.items() if task.done()}
        running = (self._tasks.keys() | self._temporary.keys()) - ended
        roles = [role for role in self.roles if role.spec.loads_graphs and role.spec.name in running]
        await asyncio.gather(*(role.restart() for role in roles))

    def kill(self) -> None:
        """Kill all roles; the housekeeper finds their runs through the leases."""
        self._stopping = True
        for role in self.roles:
            role.kill()

    async def _all_ready(self) -> None:
        await asyncio.gather(*(role.wait_ready() for role in self.roles if not role.spec.temporary))

    async def stop(self) -> None:
        """Stop the stages in order, each within its stop time; log which roles are waited for."""
        self._stopping = True
        for stage in self.stages:
            names = [role.spec.name for role in stage if role.pid is not None]
            if names:
                log.info("roles.stopping", extra={"roles": names, "at_most_secs": max(r.spec.stop_secs for r in stage)})
            await asyncio.gather(*(role.stop() for role in stage))
            known = self._tasks | self._temporary
            tasks = [known[role.spec.name] for role in stage if role.spec.name in known]
            for task in tasks:
                task.cancel()  # between two processes there is nothing to signal
            await asyncio.gather(*tasks, return_exceptions=True)

    def _raise_failed(self) -> None:
        for task in self._tasks.values():
            if task.done():
                task.result()


async def _run_temporary(role: Role, environment: Mapping[str, str], on_death: DeathHook) -> None:
    """Run a temporary role until it ends. If it cannot run, the server goes on without it."""
    try:
        await role.run(environment, on_death)
    except AgentlogError as error:
        log.error("role.failed", extra={"role": role.spec.name, "error": str(error)})
    except Exception:  # a bug; nothing else reads the outcome of this task
        log.exception("role.defect", extra={"role": role.spec.name})
