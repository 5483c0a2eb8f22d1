"""Generator of histories of runs, each run cut off after every fact and continued, compared with the uncut run."""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.langgraph.memory_checkpoints import CutLog

from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Unavailable
from agentlog_facts.execution_port import AttemptLost, RunOutcome
from agentlog_facts.graph_ports import EncodedState
from agentlog_facts.json_value import Json, JsonObject, load_object
from agentlog_infra.langgraph.loading.graphs import Graphs

Ending: TypeAlias = Literal["killed", "drained", "drained at turn"]
"""A worker dies or drains after a number of commits, or it drains after a number of turns of the event loop."""
RUNS = 4
NODES = ("begin", "work", "ask", "sub", "slow", "join")


@dataclass(frozen=True, slots=True)
class Difference:
    """A cut run that ended otherwise than the uncut one."""

    seed: int
    run: int
    cuts: Sequence[tuple[Ending, int]]
    kwargs: JsonObject
    expected: Json
    found: Json

    def __str__(self) -> str:
        lines = (f"seed {self.seed}, run {self.run}, cuts {self.cuts}", json.dumps(self.kwargs))
        return "\n".join((*lines, f"expected {json.dumps(self.expected)}", f"found    {json.dumps(self.found)}"))


@dataclass(slots=True)
class CutHistory:
    """One history of a seed: its runs, and all cuts of each of them."""

    graphs: Graphs
    seed: int
    cut_runs: int = 0
    differences: list[Difference] = field(default_factory=list[Difference])

    async def play(self) -> None:
        """Play all runs of the history and cut each after every fact."""
        choose = random.Random(self.seed)
        graph_id = choose.choice(("mixed", "delta"))
        env = ExecutorEnv(self.graphs, CutLog)
        for run in range(1, RUNS + 1):
            kwargs = await _next_run(env, graph_id, choose, run)
            before = list(env.log.drafts)
            outcome = await env.attempt(env.order(graph_id, run, 1, kwargs))
            whole, expected = list(env.log.drafts), await _seen(env, graph_id, outcome)
            for cuts in _cuts(len(whole) - len(before), choose, exits=kwargs["durability"] == "exit"):
                await self._cut(env, graph_id, run, kwargs, before, cuts, expected)
            _restore(env, whole)

    async def _cut(
        self,
        env: ExecutorEnv,
        graph_id: str,
        run: int,
        kwargs: JsonObject,
        before: Sequence[Draft],
        cuts: Sequence[tuple[Ending, int]],
        expected: JsonObject,
    ) -> None:
        _restore(env, before)
        for attempt, (ending, commits) in enumerate(cuts, 1):
            await ended(env, graph_id, run, attempt, kwargs, ending, commits)
        outcome = await env.attempt(env.order(graph_id, run, len(cuts) + 1, kwargs))
        found = await _seen(env, graph_id, outcome)
        self.cut_runs += 1
        if found != expected:
            self.differences.append(Difference(self.seed, run, cuts, kwargs, expected, found))


def _cuts(facts: int, choose: random.Random, *, exits: bool) -> Iterator[list[tuple[Ending, int]]]:
    """Yield every cut of one attempt, some with a cut of the next attempt; with `exits` also drains before its end."""
    for _ in range(6 if exits else 0):
        yield [("drained at turn", choose.randrange(150))]
    for commits in range(facts + 1):
        yield [("killed", commits)]
        yield [("drained", commits)]
        if choose.random() < 0.2:
            yield [(choose.choice(("killed", "drained")), commits), ("killed", choose.randrange(3))]


async def ended(
    env: ExecutorEnv, graph_id: str, run: int, attempt: int, kwargs: JsonObject, ending: Ending, commits: int
) -> None:
    """Execute an attempt whose worker dies or drains after so many commits or turns."""
    assert isinstance(env.log, CutLog)
    work = asyncio.ensure_future(env.attempt(env.order(graph_id, run, attempt, kwargs)))
    if ending == "killed":
        env.log.left = commits
    elif ending == "drained at turn":
        for _ in range(commits):
            await asyncio.sleep(0)
        work.cancel()
    else:
        written = asyncio.ensure_future(env.log.grows_to(len(env.log.drafts) + commits))
        await asyncio.wait({work, written}, return_when=asyncio.FIRST_COMPLETED)
        written.cancel()
        work.cancel()
    with suppress(AttemptLost, Unavailable, asyncio.CancelledError):
        await work
    env.log.left = None


def _restore(env: ExecutorEnv, drafts: Sequence[Draft]) -> None:
    """Restore the log and the rows to these commits."""
    env.log.drafts = list(drafts)
    env.reads.begin_again()
    for draft in drafts:
        env.reads.fold(draft.stream, draft.facts)


async def _next_run(env: ExecutorEnv, graph_id: str, choose: random.Random, run: int) -> JsonObject:
    """Return the arguments of a run that fits the state of the thread."""
    kwargs = await _start(env, graph_id, choose, run)
    kwargs["durability"] = choose.choice(("async", "sync", "exit"))
    for name in ("interrupt_before", "interrupt_after"):
        if choose.random() < 0.2:
            kwargs[name] = "*" if choose.random() < 0.4 else [*choose.sample(NODES, 2)]
    return kwargs


async def _start(env: ExecutorEnv, graph_id: str, choose: random.Random, run: int) -> JsonObject:
    state = _decoded(await env.access.get_state(graph_id, THREAD))
    opened = _interrupts(state)
    if opened and choose.random() < 0.75:
        more: JsonObject = {"update": {"items": [f"u{run}"]}} if choose.random() < 0.2 else {}
        if len(opened) == 1 and choose.random() < 0.5:
            return {"command": {"resume": f"a{run}", **more}}
        some = opened if choose.random() < 0.7 else opened[: choose.randint(1, len(opened))]
        return {"command": {"resume": {one: f"a{run}.{n}" for n, one in enumerate(some)}, **more}}
    if state["next"] and choose.random() < 0.5:
        return {"input": None} if choose.random() < 0.6 else {"command": {"resume": f"a{run}"}}
    if run > 1 and choose.random() < 0.2:
        command: JsonObject = {"update": {"items": [f"u{run}"]}}
        if choose.random() < 0.5:
            command["goto"] = choose.choice(("begin", "join"))
        elif choose.random() < 0.5:
            command = {"goto": {"node": "work", "input": {"i": run, "plan": {}}}}
        return {"command": command}
    return {"input": {"plan": _plan(choose), "items": [f"in{run}"]}}


def _plan(choose: random.Random) -> JsonObject:
    fan = choose.choice((0, 0, 1, 2))
    plan: JsonObject = {"fan": fan}
    for name, chance in (("ask", 0.5), ("ask2", 0.5), ("sub", 0.6), ("sub_ask", 0.6), ("sub_ask2", 0.4), ("slow", 0.4)):
        if choose.random() < chance:
            plan[name] = True
    if fan and choose.random() < 0.3:
        plan["work_ask"] = 0
    if fan and choose.random() < 0.15:
        return {"fan": fan, "fail": fan - 1}  # alone: a failure cuts parallel nodes short, wherever they are
    if choose.random() < 0.2:
        plan["loop"] = 1
    if choose.random() < 0.05:
        plan["lost"] = True
    return plan


def _interrupts(state: JsonObject) -> list[str]:
    """Return the ids of the open interrupts, in the order of their values."""
    found: list[tuple[str, str]] = []
    for task in _objects(state["tasks"]):
        found += [(json.dumps(one["value"]), str(one["id"])) for one in _objects(task["interrupts"])]
    return [one for _, one in sorted(found)]


async def _seen(env: ExecutorEnv, graph_id: str, outcome: RunOutcome) -> JsonObject:
    """Return what clients see of a thread after a run, without ids and times."""
    state = _decoded(await env.access.get_state(graph_id, THREAD, subgraphs=True))
    history = await env.access.get_history(graph_id, THREAD, limit=100)
    asked = sorted(json.dumps(one["value"]) for many in outcome.interrupts.values() for one in _objects(many))
    return {
        "outcome": [outcome.status, outcome.error, outcome.values, [*outcome.next], [*asked]],
        "state": _snapshot(state),
        "history": [_snapshot(_decoded(one)) for one in history],
    }


def _decoded(state: EncodedState) -> JsonObject:
    return load_object(state.document())


def _snapshot(state: JsonObject) -> JsonObject:
    metadata = state["metadata"]
    kept = {name: metadata.get(name) for name in ("source", "step")} if isinstance(metadata, dict) else {}
    tasks = [_task(task) for task in _objects(state["tasks"])]
    return {"values": state["values"], "next": state["next"], "metadata": kept, "tasks": [*tasks]}


def _task(task: JsonObject) -> JsonObject:
    inner = task["state"]
    asked = [one["value"] for one in _objects(task["interrupts"])]
    return {
        "name": task["name"],
        "error": task["error"],
        "result": task["result"],
        "asked": asked,
        "state": _snapshot(inner) if isinstance(inner, dict) else None,
    }


def _objects(value: Json) -> list[JsonObject]:
    assert isinstance(value, list)
    return [one for one in value if isinstance(one, dict)]
