"""States and histories equal LangGraph's own snapshots: every kind of graph, over random histories."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.infra.langgraph.executor_env import THREAD, ExecutorEnv
from tests.infra.langgraph.snapshots.zoo import GRAPHS, NODES, SOURCE
from tests.infra.langgraph.test_state import commit
from tests.infra.projects import loaded

from agentlog_facts.checkpoint_ports import CheckpointQuery
from agentlog_facts.graph_ports import LATEST, At, BadUpdate, GraphFailed
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.loading.graphs import Graphs

EXAMPLE_NAMES = ("agent", "chat", "steps", "trivial")
EXAMPLES = {f"example_{name}": f"agentlog_infra.examples.example_{name}:graph" for name in EXAMPLE_NAMES}
QUESTIONS = ("Pay 25 EUR to Ana", "count to 3", "hello \x00")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graphs]:
    folder: Path = tmp_path_factory.mktemp("zoo")
    named = {name: f"./zoo_project.py:{name}" for name in GRAPHS} | EXAMPLES
    with loaded(folder, {"zoo_project.py": SOURCE}, named) as found:
        yield found


class RandomHistory:
    """Random operations on one thread, as clients do them; whatever a graph refuses changes nothing."""

    def __init__(self, graphs: Graphs, graph_id: str, seed: int) -> None:
        self.env = ExecutorEnv(graphs)
        self._graph_id = graph_id
        self._chance = random.Random(f"{graph_id} {seed}")
        self._runs = 0

    async def operate(self) -> None:
        """Do one operation."""
        await self._chance.choice([self._input, self._input, self._go_on, self._resume, self._update, self._command])()

    async def compare(self) -> None:
        """Compare every way to read the thread; the environment asserts equality."""
        every = await self.env.reads.find(CheckpointQuery(THREAD))
        await self.env.history(self._graph_id, THREAD, limit=100)
        for subgraphs in (False, True):
            await self.env.state(self._graph_id, THREAD, LATEST, subgraphs=subgraphs)
        for one in self._chance.sample(list(every), min(4, len(every))):
            at = At(one.checkpoint_id, one.checkpoint_ns)
            await self.env.state(self._graph_id, THREAD, at, subgraphs=self._chance.random() < 0.5)
            await self.env.state(self._graph_id, THREAD, At(checkpoint_ns=one.checkpoint_ns))
            await self.env.history(self._graph_id, THREAD, At(checkpoint_ns=one.checkpoint_ns), limit=3)

    async def _run(self, **kwargs: Json) -> None:
        self._runs += 1
        kwargs["durability"] = self._chance.choice(["sync", "async", "exit"])
        order = self.env.order(self._graph_id, self._runs, 1, kwargs)
        await self.env.runs.execute(order, self.env.frames.append, self.env.stop)

    def _given(self) -> Json:
        nodes = NODES.get(self._graph_id, ())
        if self._graph_id == "example_steps":
            return {"name": "n", "fail_at": self._chance.choice(["", "three"]), "grow_bytes": 3}
        if self._graph_id in EXAMPLES:
            return {"messages": [{"role": "user", "content": self._chance.choice(QUESTIONS)}]}
        first: list[Json] = ["hello", "\x00", {"deep": [1]}, 5]
        words = [self._chance.choice(first)]
        if nodes and self._chance.random() < 0.5:
            words.append(f"{self._chance.choice(['fail', 'ask'])} {self._chance.choice(nodes)}")
        return words if self._graph_id == "rooted" else {"said": words}

    async def _input(self) -> None:
        await self._run(input=self._given(), config=await self._place())

    async def _go_on(self) -> None:
        await self._run(input=None, config=await self._place())

    async def _resume(self) -> None:
        state = await self.env.state(self._graph_id, THREAD)
        open_: list[Json] = state["interrupts"] if isinstance(state["interrupts"], list) else []
        ids = [str(one["id"]) for one in open_ if isinstance(one, dict)]
        yes: Json = {"decisions": [{"type": "approve"}]} if self._graph_id in EXAMPLES else "yes"
        answers: JsonObject = {name: yes for name in ids[: self._chance.randint(1, 2)]}
        await self._run(command={"resume": answers if answers and self._chance.random() < 0.7 else yes})

    async def _command(self) -> None:
        said: list[Json] = [["updated"], 5]
        if self._graph_id == "delta":
            del said[1]  # the reference would leave out the writes on earlier checkpoints too
        update: JsonObject = {"update": {"done" if self._graph_id in EXAMPLES else "said": self._chance.choice(said)}}
        await self._run(command=update if self._graph_id != "rooted" else {"goto": "r"})

    async def _update(self) -> None:
        at, nodes = LATEST, [*NODES.get(self._graph_id, ())]
        config = await self._place()
        configurable = config.get("configurable")
        if isinstance(configurable, dict):
            at = At(str(configurable["checkpoint_id"]))
        try:
            change = await self.env.access.update_state(
                self._graph_id,
                THREAD,
                self._given(),
                as_node=self._chance.choice([None, *nodes]),
                at=at,
                metadata={"run_id": RunId("none")},
            )
        except (BadUpdate, GraphFailed):
            return
        commit(self.env, change)

    async def _place(self) -> JsonObject:
        """Return the config of a run: mostly the latest checkpoint, else any earlier one."""
        every = await self.env.reads.find(CheckpointQuery(THREAD, ""))
        if not every or self._chance.random() < 0.7:
            return {}
        return {"configurable": {"checkpoint_id": self._chance.choice(list(every)).checkpoint_id}}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("graph_id", [*GRAPHS, *EXAMPLES])
async def test_every_state_of_a_random_history_is_langgraphs_own(graphs: Graphs, graph_id: str, seed: int) -> None:
    history = RandomHistory(graphs, graph_id, seed)
    for _ in range(6):
        await history.operate()
        await history.compare()
