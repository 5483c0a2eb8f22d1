"""Chains of channel versions: random branches, read with and without the cached ends of lists, against a plain fold."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from tests.infra.langgraph.memory_checkpoints import MemoryCheckpoints
from tests.projections.facts import (
    appended,
    full,
    run_claimed,
    run_created,
    run_finished,
    saved,
    state_updated,
    thread_created,
)
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts import json_value
from agentlog_facts.checkpoint import CheckpointSaved
from agentlog_facts.checkpoint_ports import CheckpointQuery
from agentlog_facts.envelope import Draft
from agentlog_facts.errors import Corrupt
from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_projections.models import channel_chains
from agentlog_projections.models.checkpoints import Checkpoints

T1 = ThreadId("t1")
ON_RUN, ON_THREAD = Stream("run-r1"), Stream("thread-t1")


@dataclass
class Writer:
    """Writes checkpoints whose list grows from any earlier version of it, is copied, emptied or stated again."""

    chance: random.Random
    lists: list[tuple[str, Stream, int]] = field(default_factory=list[tuple[str, Stream, int]])
    count: int = 0

    def checkpoint(self, stream: Stream) -> CheckpointSaved:
        self.count += 1
        version = f"{self.count:04}" if self.chance.random() < 0.9 else f"{max(1, self.count - 3):04}"
        run = "r1" if stream == ON_RUN else None
        return saved(f"c{self.count}", self._entry(version, stream), full("x", version, self.count), run=run)

    def _entry(self, version: str, stream: Stream) -> JsonObject:
        kind, known = self.chance.random(), self.lists[-1:]
        earlier = self.lists
        self.lists = [one for one in earlier if one[:2] != (version, stream)]
        if kind < 0.05:
            return {"channel": "m", "version": version, "kind": "empty"}
        if kind < 0.08:
            return full("m", version, 5)
        if kind < 0.15 or not earlier:
            items: list[Json] = [self.count] * self.chance.randint(1, 3)
            self.lists.append((version, stream, len(items)))
            return full("m", version, {"items": items})
        name, on, length = known[0] if self.chance.random() < 0.8 else self.chance.choice(earlier)
        more: list[Json] = [f"{self.count}.{place}" for place in range(self.chance.randint(0, 2))]
        self.lists.append((version, stream, length + len(more)))
        return appended("m", version, more, name, length, on)


def history(seed: int) -> Sequence[Draft]:
    writer = Writer(random.Random(seed))
    by_run = [draft("t1", writer.checkpoint(ON_RUN), stream="run-r1", epoch=1) for _ in range(25)]
    by_thread = [draft("t1", writer.checkpoint(ON_THREAD), state_updated({"set": {}})) for _ in range(15)]
    return [
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        *by_run,
        draft("t1", run_finished(checkpoint_id="c1"), epoch=1),
        *by_thread,
    ]


QUERIES = [
    *(CheckpointQuery(T1, "", limit=limit) for limit in (1, 2, 7, None)),
    *(CheckpointQuery(T1, "", before=before, limit=3) for before in ("c3", "c12", "c30")),
    *(CheckpointQuery(T1, "", f"c{number}") for number in (1, 9, 10, 24, 25, 26, 33, 40)),
]


async def found(reads: MemoryCheckpoints | Checkpoints, query: CheckpointQuery) -> Json:
    """Return what a query shows of each checkpoint's channels; an error if a chain is broken."""
    try:
        return [
            [
                one.checkpoint_id,
                {
                    name: [channel.kind, channel.version, channel.stream, channel.value, list(channel.items)]
                    for name, channel in one.channels.items()
                },
            ]
            for one in await reads.find(query)
        ]
    except Corrupt as error:
        return str(error)


@pytest.mark.parametrize("seed", range(12))
async def test_versions_are_those_of_a_plain_fold_with_and_without_cached_ends(
    given: Applying, env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(channel_chains, "MIN_CACHED_BYTES", 0)
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    plain, cached, chance = MemoryCheckpoints(), Checkpoints(env.pool), random.Random(seed)
    for number, one in enumerate(history(seed)):
        await given(one)
        plain.fold(one.stream, one.facts)
        if number % 9 == 0 or number > 35:
            for query in chance.sample(QUERIES, 4):
                expected = await found(plain, query)
                assert await found(cached, query) == expected
                assert await found(Checkpoints(env.pool), query) == expected


async def a_long_list(given: Applying, env: ProjectorEnv, length: int) -> None:
    """Store checkpoints c1, c2, ... of a list whose first item is long."""
    await env.pool.execute("INSERT INTO ledger.positions (partition, present) VALUES (0, true)")
    await given(draft("t1", thread_created(), run_created()), draft("t1", run_claimed()))
    entries = [full("m", "1", {"items": ["x" * 5000]})]
    entries += [appended("m", str(n), [n], str(n - 1), n - 1, ON_RUN) for n in range(2, length + 1)]
    for n, entry in enumerate(entries, 1):
        await given(draft("t1", saved(f"c{n}", entry), stream="run-r1", epoch=1))


async def test_a_long_list_is_read_from_its_cached_end(given: Applying, env: ProjectorEnv) -> None:
    await a_long_list(given, env, 59)
    reads, query = Checkpoints(env.pool), CheckpointQuery(T1, "", limit=1)
    before = await found(reads, query)
    await env.pool.execute("DELETE FROM read_v1.channels WHERE version <> '59'")  # the end is enough
    assert await found(reads, query) == before
    await given(draft("t1", saved("c60", appended("m", "60", [60], "59", 59, ON_RUN)), stream="run-r1", epoch=1))
    match await found(reads, query):
        case [[_, {"m": [*_, last]}]]:
            assert last == ["x" * 5000, *range(2, 61)]
        case other:
            pytest.fail(f"expected one checkpoint with its list, found {other}")


_FOLDED_AGAIN = """
ALTER TABLE read_v1.channels RENAME TO channels_before;
CREATE TABLE read_v1.channels (LIKE read_v1.channels_before INCLUDING ALL);
INSERT INTO read_v1.channels SELECT * FROM read_v1.channels_before;
DROP TABLE read_v1.channels_before
"""


@pytest.mark.parametrize("version", ["3", "3.other"])
async def test_a_cached_end_serves_no_rows_of_another_fold(given: Applying, env: ProjectorEnv, version: str) -> None:
    """After a rebuild from an older copy of the log, a run lost the list, or went on with that of the lost log."""
    await a_long_list(given, env, 3)
    reads, query = Checkpoints(env.pool), CheckpointQuery(T1, "", limit=1)
    await found(reads, query)
    await env.pool.execute(_FOLDED_AGAIN)
    await env.pool.execute(
        "UPDATE read_v1.channels SET version = $1, payload = '[\"other\"]' WHERE version = '3'", version
    )
    named = "UPDATE read_v1.checkpoints SET versions = json_build_object('m', $1::text) WHERE checkpoint_id = 'c3'"
    await env.pool.execute(named, version)
    expected = await found(Checkpoints(env.pool), query)
    assert expected == [["c3", {"m": ["list", version, ON_RUN, None, ["x" * 5000, 2, "other"]]}]]
    assert await found(reads, query) == expected
    await given(draft("t1", saved("c4", appended("m", "4", [4], version, 3, ON_RUN)), stream="run-r1", epoch=1))
    assert await found(reads, query) == await found(Checkpoints(env.pool), query)


async def test_a_read_of_an_earlier_version_builds_no_list_for_the_cache_that_has_a_newer_one(
    given: Applying, env: ProjectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_long_list(given, env, 3)
    parsed: list[int] = []

    def load(data: bytes) -> Json:
        parsed.append(len(data))
        return json_value.load(data)

    monkeypatch.setattr(channel_chains, "load", load)
    reads, first = Checkpoints(env.pool), CheckpointQuery(T1, "", "c1")
    await found(reads, CheckpointQuery(T1, "", limit=1))
    parsed.clear()
    await found(reads, first)
    assert len([size for size in parsed if size > 5000]) == 1
