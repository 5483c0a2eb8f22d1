"""The supervisor of all role processes: concurrent start, restart, and stop in a fixed order."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from agentlog_infra import timeouts
from agentlog_infra.process.restart_budget import RestartBudget
from agentlog_infra.supervisor.forkserver import ForkServer
from agentlog_infra.supervisor.role import DeathHook, Role, RoleSpec, end_old_roles

log = logging.getLogger(__name__)

GATEWAY_MODULE = "agentlog_gateway"
PROCESSORS_MODULE = "agentlog_processors"


def role_specs(workers: int, grace_secs: float) -> tuple[tuple[RoleSpec, ...], ...]:
    """Return all roles of one machine, in the order they stop: no new requests, then no new work, then the rest.

    The projector stops last: workers that finish or give back their runs need its verdicts.
    """
    gateway = RoleSpec(
        "gateway", GATEWAY_MODULE, stop_secs=timeouts.GATEWAY_STOP_S, loads_graphs=True, preload=f"{GATEWAY_MODULE}.app"
    )
    executing = tuple(
        RoleSpec(
            f"worker-{number}",
            PROCESSORS_MODULE,
            ("worker",),
            executes_runs=True,
            stop_secs=grace_secs + timeouts.WORKER_STOP_S,
            loads_graphs=True,
            preload=f"{PROCESSORS_MODULE}.main",
        )
        for number in range(1, workers + 1)
    )
    duties = "projector,housekeeper"
    light = RoleSpec(duties, PROCESSORS_MODULE, (duties,), preload=f"{PROCESSORS_MODULE}.main")
    return (gateway,), executing, (light,)


class Supervisor:
    """Supervises role processes, in `stages` that stop one after the other; all share one restart budget.

    Entering the context begins to load their code; `start` starts them; `stop` stops them in order.
    """

    def __init__(self, stages: Sequence[Sequence[RoleSpec]], notes: Path, budget: RestartBudget | None = None) -> None:
        self._notes = notes
        shared = budget or RestartBudget()
        self._forkserver = ForkServer([spec.preload for stage in stages for spec in stage if spec.preload])
        self.stages = [[Role(spec, self._forkserver, notes, shared) for spec in stage] for stage in stages]
        self._tasks: dict[str, asyncio.Task[None]] = {}
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
        self._tasks = {
            role.spec.name: asyncio.create_task(role.run(environment, on_worker_death), name=role.spec.name)
            for role in self.roles
        }
        ready = asyncio.create_task(self._all_ready())
        try:
            await asyncio.wait([ready, *self._tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            self._raise_failed()
        except BaseException:
            self.kill()
            await self.stop()
            raise
        finally:
            ready.cancel()

    async def wait_failed(self) -> None:
        """Wait until a role cannot be kept running. Raises: Misconfigured, RoleCrashes, Unavailable."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        self._raise_failed()

    async def reload(self) -> None:
        """Replace, in order, the roles that load graphs."""
        await asyncio.gather(*(role.restart() for role in self.roles if role.spec.loads_graphs))

    def kill(self) -> None:
        """Kill all roles; the housekeeper finds their runs through the leases."""
        for role in self.roles:
            role.kill()

    async def _all_ready(self) -> None:
        await asyncio.gather(*(role.wait_ready() for role in self.roles))

    async def stop(self) -> None:
        """Stop the stages in order, each within its stop time; log which roles are waited for."""
        for stage in self.stages:
            names = [role.spec.name for role in stage if role.pid is not None]
            if names:
                log.info("roles.stopping", extra={"roles": names, "at_most_secs": max(r.spec.stop_secs for r in stage)})
            await asyncio.gather(*(role.stop() for role in stage))
            tasks = [self._tasks[role.spec.name] for role in stage if role.spec.name in self._tasks]
            for task in tasks:
                task.cancel()  # between two processes there is nothing to signal
            await asyncio.gather(*tasks, return_exceptions=True)

    def _raise_failed(self) -> None:
        for task in self._tasks.values():
            if task.done():
                task.result()
