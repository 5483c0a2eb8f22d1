"""Tests of the supervisor: concurrent start, restart after a death, and the end of all if one role cannot run."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.stack_fixtures import until

from agentlog_facts.errors import Misconfigured
from agentlog_infra.console import Status, say_error
from agentlog_infra.process.child import child_environment, identify, remember, spawn
from agentlog_infra.process.restart_budget import LIMIT, RestartBudget
from agentlog_infra.supervisor.role import DeathHook, Role, RoleCrashes, RoleSpec
from agentlog_infra.supervisor.supervisor import Supervisor, role_specs

pytestmark = pytest.mark.slow

TOYS = Path(__file__).with_name("toys")


class Toys:
    """A supervisor of toy roles, their notes, and the workers that were reported dead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dead: list[str] = []
        self.seen: Supervisor | None = None
        self.environment = {
            "TOY_NOTES": str(folder / "notes.jsonl"),
            "TOY_BEHAVIOUR": str(folder / "behaviour.json"),
        }

    def behave(self, **wanted: str) -> None:
        """Set the behaviour of toys at their next start."""
        (self.folder / "behaviour.json").write_text(json.dumps(wanted))

    def notes(self, what: str) -> list[dict[str, str]]:
        """Return the lines of one kind, in order."""
        return [line for line in self.lines() if line["what"] == what]

    def lines(self) -> list[dict[str, str]]:
        """Return all lines, in order."""
        path = self.folder / "notes.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def unreported(self) -> list[int]:
        """Return the pids of the started workers that were not reported dead: first of `worker`, then of `spare`."""
        alive = [line for line in self.notes("started") if line["worker"] not in self.dead]
        return [int(line["pid"]) for name in ("worker", "spare") for line in alive if line["role"] == name]

    async def on_death(self, worker_id: str) -> None:
        """Record a worker that was reported dead."""
        self.dead.append(worker_id)

    @asynccontextmanager
    async def supervisor(
        self, stages: Sequence[Sequence[RoleSpec]], restarts: int = LIMIT
    ) -> AsyncGenerator[Supervisor]:
        """Run toy roles."""
        async with Supervisor(stages, self.folder, restarts) as supervisor:
            self.seen = supervisor
            await supervisor.start(self.environment, self.on_death)
            yield supervisor
            await supervisor.stop()


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    """Return the toys of a test."""
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    return Toys(tmp_path)


def toy(name: str, *, executes_runs: bool = False, loads_graphs: bool = False, stop_secs: float = 10.0) -> RoleSpec:
    """Return the spec of a toy role."""
    return RoleSpec(
        name, "toy_role", (name,), executes_runs, stop_secs, loads_graphs, preload="agentlog_infra.system_ports"
    )


async def test_roles_stop_in_the_order_of_their_stages(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway")], [toy("worker", executes_runs=True)], [toy("projector")]]):
        assert {line["role"] for line in toys.notes("started")} == {"gateway", "worker", "projector"}
    assert [line["role"] for line in toys.notes("stopped")] == ["gateway", "worker", "projector"]
    assert toys.dead == [], "a worker that was asked to stop and did gave its runs back itself"


async def test_a_killed_worker_comes_back_and_its_runs_are_told_lost(toys: Toys) -> None:
    async with toys.supervisor([[toy("worker", executes_runs=True)]]):
        first = toys.notes("started")[0]
        os.kill(int(first["pid"]), signal.SIGKILL)
        await until(lambda: len(toys.notes("started")) == 2)
        second = toys.notes("started")[1]
        assert toys.dead == [first["worker"]]
        assert second["worker"] not in ("", first["worker"])


async def test_a_role_that_dies_again_and_again_ends_the_whole(toys: Toys, capsys: pytest.CaptureFixture[str]) -> None:
    toys.behave(projector="dies")
    with pytest.raises(RoleCrashes, match="projector keeps crashing") as raised:
        async with toys.supervisor([[toy("gateway")], [toy("projector")]], restarts=3):
            pytest.fail("it counts as started")
    assert say_error(raised.value) == Status.FAILED
    assert "fix: its last log lines" in capsys.readouterr().err
    assert len([line for line in toys.notes("started") if line["role"] == "projector"]) == 4
    assert toys.seen
    assert all(role.pid is None for role in toys.seen.roles)


async def test_a_worker_that_user_code_keeps_from_stopping_is_replaced_as_often_as_it_takes(toys: Toys) -> None:
    toys.behave(worker="stuck")
    async with toys.supervisor([[toy("worker", executes_runs=True)]], restarts=1):
        await until(lambda: len(toys.notes("started")) > 3)
        toys.behave()
        assert len(toys.dead) >= 2, "its runs are told lost"


async def test_roles_with_user_code_that_die_after_their_start_are_replaced_for_ever(toys: Toys) -> None:
    toys.behave(worker="dies later", gateway="dies later")
    roles = [[toy("gateway", loads_graphs=True)], [toy("worker", executes_runs=True)], [toy("projector")]]

    def starts(role: str) -> int:
        return len([line for line in toys.notes("started") if line["role"] == role])

    async with toys.supervisor(roles, restarts=1) as supervisor:
        await until(lambda: starts("worker") >= 4 and starts("gateway") >= 4)
        [pid] = [int(line["pid"]) for line in toys.notes("started") if line["role"] == "projector"]
        os.kill(pid, signal.SIGKILL)
        await until(lambda: starts("projector") == 2)
        toys.behave()
        await asyncio.gather(*(role.wait_ready() for role in supervisor.roles))
        assert len(toys.dead) >= 3, "workers only"


async def test_a_worker_that_never_becomes_ready_ends_the_start(toys: Toys) -> None:
    toys.behave(worker="dies")
    with pytest.raises(RoleCrashes, match="worker keeps crashing"):
        async with toys.supervisor([[toy("worker", executes_runs=True)]], restarts=1):
            pytest.fail("it counts as started")


async def test_a_bug_while_a_spare_worker_runs_is_logged_with_its_traceback(
    toys: Toys, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(role: Role, environment: Mapping[str, str], on_death: DeathHook) -> None:
        raise KeyError("a bug")

    spare = replace(toy("spare", executes_runs=True), temporary=True)
    async with toys.supervisor([[toy("worker", executes_runs=True), spare]]):
        monkeypatch.setattr(Role, "run", broken)
        os.kill(int(toys.notes("started")[0]["pid"]), signal.SIGKILL)
        await until(lambda: "role.defect" in caplog.messages)
    [line] = [line for line in caplog.records if line.message == "role.defect"]
    assert (line.levelname, line.exc_info and line.exc_info[0]) == ("ERROR", KeyError)


async def test_spare_workers_start_when_a_worker_died_and_may_leave(toys: Toys) -> None:
    spare = replace(toy("spare", executes_runs=True, loads_graphs=True), temporary=True)
    async with toys.supervisor([[toy("worker", executes_runs=True), spare]]) as supervisor:
        assert {line["role"] for line in toys.notes("started")} == {"worker"}
        await supervisor.reload()
        toys.behave(spare="leaves")
        for number in (1, 2):
            pid = next(role.pid for role in supervisor.roles if role.spec.name == "worker")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: len([one for one in toys.notes("started") if one["role"] == "spare"]) == number)  # noqa: B023 - called in this turn
            await until(lambda: all(role.pid is None for role in supervisor.roles if role.spec.temporary))
            await next(role for role in supervisor.roles if not role.spec.temporary).wait_ready()
        assert len(toys.dead) == 2, "a spare worker that left gave everything back"


@pytest.mark.parametrize("how", ["exits with 0", "exits as misconfigured"])
async def test_a_worker_that_user_code_ends_is_reported_and_replaced_whatever_its_status_says(
    toys: Toys, how: str
) -> None:
    """User code may call `os._exit` with any status."""
    spare = replace(toy("spare", executes_runs=True, loads_graphs=True), temporary=True)
    async with toys.supervisor([[toy("worker", executes_runs=True), spare]], restarts=1) as supervisor:
        toys.behave(worker=how, spare=how)
        os.kill(int(toys.notes("started")[0]["pid"]), signal.SIGKILL)
        for name in ("worker", "spare"):
            await until(lambda: len([one for one in toys.notes("started") if one["role"] == name]) >= 4)  # noqa: B023 - called in this turn
        toys.behave()
        await until(lambda: toys.unreported() == [role.pid for role in supervisor.roles])  # none between two processes
        assert len(toys.dead) == len(set(toys.dead)), "each that ended is reported once"


async def test_a_configuration_that_breaks_after_the_start_does_not_end_the_server(toys: Toys) -> None:
    """A worker that died cannot start again until the operator mends the configuration; nothing else stops."""
    async with toys.supervisor([[toy("gateway")], [toy("worker", executes_runs=True)]], restarts=1) as supervisor:
        toys.behave(worker="misconfigured")
        os.kill(int(next(one["pid"] for one in toys.notes("started") if one["role"] == "worker")), signal.SIGKILL)
        await until(lambda: len([one for one in toys.notes("started") if one["role"] == "worker"]) >= 4)
        toys.behave()
        await asyncio.gather(*(role.wait_ready() for role in supervisor.roles))
        assert len([one for one in toys.notes("started") if one["role"] == "gateway"]) == 1


async def test_a_spare_worker_that_dies_is_started_again_and_replaced_at_a_change(toys: Toys) -> None:
    spare = replace(toy("spare", executes_runs=True, loads_graphs=True), temporary=True)
    async with toys.supervisor([[toy("worker", executes_runs=True), spare]]) as supervisor:
        os.kill(int(toys.notes("started")[0]["pid"]), signal.SIGKILL)
        for number in (1, 2):
            await until(lambda: supervisor.roles[1].pid is not None)
            await supervisor.roles[1].wait_ready()
            assert len([one for one in toys.notes("started") if one["role"] == "spare"]) == number
            pid = supervisor.roles[1].pid
            if number == 1:
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                await until(lambda: len(toys.dead) == 2)
        await supervisor.reload()
        assert len([one for one in toys.notes("started") if one["role"] == "spare"]) == 3


async def test_a_role_that_cannot_run_as_configured_is_not_tried_again(toys: Toys) -> None:
    toys.behave(worker="misconfigured")
    with pytest.raises(Misconfigured, match="worker cannot run with this configuration"):
        async with toys.supervisor([[toy("gateway")], [toy("worker")]]):
            pytest.fail("it counts as started")
    assert len([line for line in toys.notes("started") if line["role"] == "worker"]) == 1
    assert toys.seen
    assert all(role.pid is None for role in toys.seen.roles)


async def test_a_role_that_does_not_stop_in_its_time_is_killed(toys: Toys) -> None:
    toys.behave(gateway="stubborn")
    async with toys.supervisor([[toy("gateway", stop_secs=0.3)]]):
        pid = int(toys.notes("started")[0]["pid"])
    assert len(toys.notes("asked to stop")) == 1
    assert not psutil.pid_exists(pid)


async def test_a_changed_graph_replaces_only_roles_that_load_graphs(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway", loads_graphs=True)], [toy("projector")]]) as supervisor:
        await supervisor.reload()
        assert sorted(line["role"] for line in toys.notes("started")) == ["gateway", "gateway", "projector"]


async def test_a_change_that_breaks_a_graph_waits_for_the_next_change(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway", loads_graphs=True)]]) as supervisor:
        toys.behave(gateway="misconfigured")
        await supervisor.reload()
        assert supervisor.roles[0].pid is None
        toys.behave(gateway="steady")
        await supervisor.reload()
        assert supervisor.roles[0].pid is not None


async def test_roles_of_a_killed_supervisor_are_ended_and_their_runs_told_lost(toys: Toys) -> None:
    left = await spawn([sys.executable, "-c", "import signal; signal.pause()"], death_signal=signal.SIGKILL)
    found = identify(left.pid)
    assert found is not None
    remember(toys.folder / "role-worker-1.json", found, worker_id="w1")
    async with toys.supervisor([[toy("gateway")]]):
        assert await left.wait() == -signal.SIGKILL
        assert toys.dead == ["w1"]
    assert not (toys.folder / "role-worker-1.json").exists()


async def test_a_role_whose_note_was_copied_with_its_data_directory_is_left_alone(toys: Toys, tmp_path: Path) -> None:
    original = await spawn([sys.executable, "-c", "import signal; signal.pause()"], death_signal=signal.SIGKILL)
    found = identify(original.pid)
    assert found is not None
    elsewhere = tmp_path / "original"
    elsewhere.mkdir()
    remember(elsewhere / "role-worker-1.json", found, worker_id="w1")
    shutil.copy(elsewhere / "role-worker-1.json", toys.folder / "role-worker-1.json")
    async with toys.supervisor([[toy("gateway")]]):
        assert found.alive()
    assert found.alive()
    original.kill()
    await original.wait()


async def test_a_process_that_only_has_the_pid_of_an_old_role_is_left_alone(toys: Toys) -> None:
    note = {"pid": os.getpid(), "started": "long ago", "worker_id": "w1"}
    (toys.folder / "role-worker-1.json").write_text(json.dumps(note))
    async with toys.supervisor([[toy("gateway")]]):
        assert toys.dead == ["w1"]


def test_when_the_supervisor_is_killed_its_roles_go_too(toys: Toys) -> None:
    script = f"""\
import asyncio
from pathlib import Path
from agentlog_infra.supervisor.role import RoleSpec
from agentlog_infra.supervisor.supervisor import Supervisor
async def on_death(worker_id): raise AssertionError
async def main():
    roles = [[RoleSpec("gateway", "toy_role", ("gateway",))]]
    async with Supervisor(roles, Path({str(toys.folder)!r})) as supervisor:
        await supervisor.start({toys.environment!r}, on_death)
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=child_environment()) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"ready\n"
        roles = psutil.Process(owner.pid).children()
        owner.kill()
        _, alive = psutil.wait_procs(roles, timeout=10)
    assert len(roles) == 1
    assert alive == []


def test_the_budget_forgets_what_is_older_than_its_window() -> None:
    now = [0.0]
    budget = RestartBudget(limit=3, window_secs=60.0, clock=lambda: now[0])
    assert [budget.next_delay_secs() for _ in range(3)] == [0.1, 0.2, 0.4]
    assert budget.next_delay_secs() is None
    now[0] = 60.0
    assert budget.next_delay_secs() == 0.1


def test_workers_stop_after_the_gateway_and_before_the_projector_whose_verdicts_they_need() -> None:
    stages = [[spec.name for spec in stage] for stage in role_specs(workers=2, grace_secs=7.0)]
    assert stages == [["gateway"], ["worker-1", "worker-2"], ["projector,housekeeper"]]
    assert all(spec.stop_secs > 7.0 for spec in role_specs(2, 7.0)[1])
    spares = role_specs(workers=1, grace_secs=7.0, spares=2)[1][1:]
    assert [(spec.name, spec.arguments, spec.temporary) for spec in spares] == [
        ("spare-1", ("spare", "--leave-when-idle"), True),
        ("spare-2", ("spare", "--leave-when-idle"), True),
    ]


async def test_a_role_that_fails_later_is_reported_to_who_waits(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway")]], restarts=0) as supervisor:
        os.kill(int(toys.notes("started")[0]["pid"]), signal.SIGKILL)
        with pytest.raises(RoleCrashes, match="last exit status -9"):
            async with asyncio.timeout(10):
                await supervisor.wait_failed()


async def test_when_the_process_that_forks_roles_is_killed_all_roles_come_back(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway")], [toy("worker", executes_runs=True)]]):
        first = {int(line["pid"]) for line in toys.notes("started")}
        forkserver = psutil.Process(first.pop()).parent()
        assert forkserver is not None
        forkserver.kill()
        await until(lambda: len(toys.notes("started")) == 4)
        assert len(toys.dead) == 1


async def test_a_role_is_shown_under_its_own_command_line(toys: Toys) -> None:
    async with toys.supervisor([[toy("gateway")]]):
        found = psutil.Process(int(toys.notes("started")[0]["pid"])).cmdline()
    assert found[1:5] == ["-m", "toy_role", "gateway", "--ready-fd"]


async def test_roles_that_are_forked_from_one_process_never_draw_the_same_ids(toys: Toys) -> None:
    toys.behave(one="draws", two="draws")
    async with toys.supervisor([[toy("one")], [toy("two")]]):
        drawn = [set(line["what"].split()[1:]) for line in toys.lines() if line["what"].startswith("drew ")]
    assert len(drawn) == 2
    assert len(drawn[0]) == len(drawn[1]) == 3
    assert not drawn[0] & drawn[1]
