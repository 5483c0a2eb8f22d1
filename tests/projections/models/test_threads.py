"""Read model of threads: given facts, applied twice, then rows; and queries on them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.projections.facts import (
    cancel_requested,
    patched,
    run_claimed,
    run_created,
    run_deleted,
    run_finished,
    state_updated,
    thread_created,
    thread_deleted,
)
from tests.projections.found_threads import found_ids, found_threads
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.ids import Stream, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.thread import ThreadPruned, ThreadTtlSet
from agentlog_projections.models.thread_fold import shown_config
from agentlog_projections.models.threads import Thread, ThreadFilter, Threads

T1 = ThreadId("t1")


@pytest.fixture
def threads(env: ProjectorEnv) -> Threads:
    return Threads(env.pool)


async def of(threads: Threads) -> Thread:
    found = await threads.get(T1)
    assert found is not None
    return found


async def test_a_new_thread_is_idle_and_has_no_values(given: Applying, threads: Threads) -> None:
    created = draft("t1", thread_created(metadata={"a": 1}))
    await given(created)
    thread = await of(threads)
    assert (thread.status, thread.values, thread.metadata, thread.version) == ("idle", None, {"a": 1}, 0)
    assert thread.created_at == thread.updated_at == thread.state_updated_at == created.occurred_at


async def test_a_patch_merges_top_level_keys_and_leaves_the_time_of_the_state_alone(
    given: Applying, threads: Threads
) -> None:
    created = draft("t1", thread_created(metadata={"a": 1, "b": {"c": 1}}))
    patch = draft("t1", patched({"b": None}), stream="meta-t1")
    await given(created, patch)
    thread = await of(threads)
    assert thread.metadata == {"a": 1, "b": None}
    assert (thread.updated_at, thread.state_updated_at) == (patch.occurred_at, created.occurred_at)
    assert (thread.version, thread.meta_version) == (0, 0)


async def test_a_run_makes_the_thread_busy_and_stamps_graph_and_assistant(given: Applying, threads: Threads) -> None:
    config: JsonObject = {"tags": ["x"], "configurable": {"thread_id": "t1", "langgraph_auth_user": None, "own": 1}}
    await given(draft("t1", thread_created(metadata={"a": 1}), run_created(config=config)))
    thread = await of(threads)
    assert thread.status == "busy"
    assert thread.metadata == {"a": 1, "graph_id": "agent", "assistant_id": "a1"}
    assert thread.config == {"tags": ["x"], "configurable": {"own": 1}}


async def test_a_thread_shows_the_config_that_a_run_states_for_it(given: Applying, threads: Threads) -> None:
    run = replace(run_created(config={"configurable": {"own": 1}}), thread_config={"configurable": {}, "tags": ["x"]})
    await given(draft("t1", thread_created(), run))
    assert (await of(threads)).config == {"configurable": {}, "tags": ["x"]}


def test_a_threads_config_hides_each_key_that_begins_like_one_of_the_server() -> None:
    hidden: JsonObject = {"langgraph_request_id": "q", "langgraph_request_id_2": "q", "__x": 1, "checkpoint_id": "c"}
    assert shown_config({"configurable": {**hidden, "own": 1}}) == {"configurable": {"own": 1}}


async def test_the_end_of_a_run_moves_values_once_although_it_is_applied_twice(
    given: Applying, threads: Threads
) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished(view={"set": {"x": ["a"]}}), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", run_finished("r2", {"append": {"x": ["b"]}}), epoch=4),
    )
    thread = await of(threads)
    assert thread.values == {"x": ["a", "b"]}
    assert (thread.status, thread.last_run_id, thread.version) == ("idle", "r2", 5)


async def test_values_hold_what_jsonb_cannot(given: Applying, threads: Threads) -> None:
    values: JsonObject = {"z": "a\x00b", "a": 1e308, "literal": "\\u0000", "list": [1.0, 1]}
    await given(draft("t1", thread_created()), draft("t1", state_updated({"set": values})))
    thread = await of(threads)
    assert thread.values == values
    assert thread.values is not None
    assert list(thread.values) == ["z", "a", "literal", "list"]
    assert await found_ids(threads, ThreadFilter(values={"z": "a\x00b"})) == ["t1"]
    assert await found_ids(threads, ThreadFilter(values={"literal": "\\u0000"})) == ["t1"]
    assert await found_ids(threads, ThreadFilter(values={"z": "ab"})) == []


async def test_the_thread_stays_busy_while_another_run_waits(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed()),
        draft("t1", run_finished(view={"set": {"x": 1}}), epoch=2),
    )
    assert (await of(threads)).status == "busy"


@pytest.mark.parametrize(
    ("status", "error", "following", "interrupts", "expected"),
    [
        ("success", None, (), {}, "idle"),
        ("success", None, ("human",), {"task": [{"id": "i", "value": 1}]}, "interrupted"),
        ("interrupted", {"error": "UserInterrupt", "message": ""}, ("b",), {}, "interrupted"),
        ("error", {"error": "ValueError", "message": "no"}, ("b",), {}, "error"),
        ("timeout", {"error": "TimeoutError", "message": ""}, (), {}, "error"),
    ],
)
async def test_the_end_of_a_run_decides_the_status(
    given: Applying,
    threads: Threads,
    status: str,
    error: JsonObject | None,
    following: tuple[str, ...],
    interrupts: JsonObject,
    expected: str,
) -> None:
    finished = run_finished(status=status, error=error, following=following, interrupts=interrupts)  # type: ignore[arg-type]  # a literal, from the table above
    await given(
        draft("t1", thread_created(), run_created()), draft("t1", run_claimed()), draft("t1", finished, epoch=1)
    )
    thread = await of(threads)
    assert (thread.status, thread.error, thread.next, thread.interrupts) == (expected, error, following, interrupts)


ON_T1 = Stream("thread-t1")


async def test_behind_an_accepted_cancel_the_thread_shows_as_after_the_end_of_the_run(
    given: Applying, threads: Threads
) -> None:
    asked, finished = cancel_requested(), run_finished(status="interrupted", error=cancel_requested().error)
    await given(
        draft("t1", thread_created(), run_created()), draft("t1", run_claimed()), draft("t1", asked, demands={ON_T1: 1})
    )
    thread = await of(threads)
    assert (thread.status, thread.error) == ("interrupted", asked.error)
    await given(draft("t1", run_created("r2")))
    assert (await of(threads)).status == "busy"
    await given(draft("t1", finished, epoch=1))
    assert (await of(threads)).status == "busy"
    await given(draft("t1", run_claimed("r2")), draft("t1", run_finished("r2"), epoch=5))
    assert ((await of(threads)).status, (await of(threads)).error) == ("idle", None)


async def test_behind_an_accepted_rollback_the_thread_shows_as_before_the_run(
    given: Applying, threads: Threads
) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", cancel_requested(action="rollback"), demands={ON_T1: 1}),
        draft("t1", cancel_requested(), demands={ON_T1: 2}),  # a later request changes nothing
    )
    assert ((await of(threads)).status, (await of(threads)).error) == ("idle", None)


async def test_a_run_whose_time_is_over_shows_the_thread_as_failed_before_its_end(
    given: Applying, threads: Threads
) -> None:
    asked = replace(cancel_requested(), error={"error": "TimeoutError", "message": ""})
    await given(
        draft("t1", thread_created(), run_created()), draft("t1", run_claimed()), draft("t1", asked, demands={ON_T1: 1})
    )
    assert (await of(threads)).status == "error"


async def test_a_run_that_never_began_leaves_the_open_interrupt_alone(given: Applying, threads: Threads) -> None:
    waiting: JsonObject = {"task": [{"id": "i", "value": 1}]}
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished(following=("human",), interrupts=waiting), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_finished("r2", status="interrupted"), demands={draft("t1", thread_created()).stream: 3}),
    )
    thread = await of(threads)
    assert (thread.status, thread.next, thread.interrupts) == ("interrupted", ("human",), waiting)


async def test_deleting_a_run_leads_to_the_view_that_the_fact_carries(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished(view={"set": {"x": 1, "y": 2}}), epoch=1),
        draft("t1", run_deleted(view={"remove": ["y"]})),
    )
    assert (await of(threads)).values == {"x": 1}


FAILED: JsonObject = {"error": "ValueError", "message": "no"}


async def test_deleting_an_older_run_leaves_the_error_of_the_last_one(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_finished(view={"set": {"x": 1}}), epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", run_finished("r2", status="error", error=FAILED), epoch=4),
        draft("t1", run_deleted()),
    )
    assert ((await of(threads)).status, (await of(threads)).error) == ("error", FAILED)
    await given(draft("t1", run_deleted("r2")))
    assert ((await of(threads)).status, (await of(threads)).error) == ("idle", None)


@pytest.mark.parametrize(("error", "status"), [(None, "idle"), (FAILED, "error")])
async def test_a_rolled_back_run_leaves_the_thread_as_it_was(
    given: Applying, threads: Threads, error: JsonObject | None, status: str
) -> None:
    rolled: JsonObject = {"error": "UserRollback", "message": "m"}
    first = run_finished(view={"set": {"x": 1}}, status="success" if error is None else "error", error=error)
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", first, epoch=1),
        draft("t1", run_created("r2")),
        draft("t1", run_claimed("r2")),
        draft("t1", run_finished("r2", status="rollback", error=rolled), epoch=4),
    )
    thread = await of(threads)
    assert (thread.status, thread.error, thread.values) == (status, error, {"x": 1})


async def test_a_pending_run_that_is_cancelled_leaves_no_error(given: Applying, threads: Threads) -> None:
    stopped = run_finished("r2", status="interrupted", error={"error": "UserInterrupt", "message": "m"})
    await given(
        draft("t1", thread_created(), run_created()),
        draft("t1", run_claimed()),
        draft("t1", run_created("r2")),
        draft("t1", stopped, demands={draft("t1", thread_created()).stream: 2}),
    )
    assert ((await of(threads)).status, (await of(threads)).error) == ("busy", None)


async def test_a_patch_on_the_stream_of_the_thread_is_merged_too(given: Applying, threads: Threads) -> None:
    await given(draft("t1", thread_created(metadata={"a": 1})), draft("t1", patched({"b": 2})))
    thread = await of(threads)
    assert (thread.metadata, thread.version, thread.meta_version) == ({"a": 1, "b": 2}, 1, None)


async def test_a_deleted_thread_is_not_shown(given: Applying, threads: Threads) -> None:
    deleted = draft("t1", thread_deleted())
    await given(draft("t1", thread_created()), draft("t1", state_updated({"set": {"x": 1}})), deleted)
    assert await threads.get(T1) is None
    assert await threads.text(T1) is None
    assert await found_ids(threads) == []


async def test_a_thread_that_is_created_again_begins_anew(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created(metadata={"old": 1})),
        draft("t1", state_updated({"set": {"x": 1}})),
        draft("t1", thread_deleted()),
        draft("t1", thread_created(metadata={"new": 1})),
    )
    thread = await of(threads)
    assert (thread.metadata, thread.values, thread.version) == ({"new": 1}, None, 3)


async def test_threads_are_found_by_containment_status_and_id(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created("t1", {"user": {"id": 1, "name": "ana"}, "nul": "\x00"})),
        draft("t2", thread_created("t2", {"user": {"id": 2}})),
        draft("t2", run_created("r2", "t2")),
        draft("t3", thread_created("t3")),
    )

    async def found(where: ThreadFilter) -> Sequence[str]:
        return await found_ids(threads, where)

    assert await found(ThreadFilter(metadata={"user": {"id": 1}})) == ["t1"]
    assert await found(ThreadFilter(metadata={"nul": "\x00"})) == ["t1"]
    assert await found(ThreadFilter(status="busy")) == ["t2"]
    assert await found(ThreadFilter(ids=("t3", "t1", "unknown"))) == ["t1", "t3"]
    assert await found(ThreadFilter()) == ["t1", "t2", "t3"]
    assert await found(ThreadFilter(ids=("t1",), metadata={})) == ["t1"]
    page = await found_threads(threads, sort_by="created_at", limit=1, offset=1)
    assert [one.thread.thread_id for one in page] == ["t2"]


@pytest.mark.parametrize("field", ["metadata", "values"])
async def test_lists_of_a_filter_are_compared_whole(given: Applying, threads: Threads, field: str) -> None:
    stored: JsonObject = {"tags": ["a", "b"], "deep": {"list": [{"x": 1, "y": 2}], "n": 1}, "empty": [], "0": ["\x00"]}
    if field == "metadata":
        await given(draft("t1", thread_created("t1", stored)))
    else:
        await given(draft("t1", thread_created()), draft("t1", state_updated({"set": stored})))

    async def found(wanted: JsonObject) -> bool:
        where = ThreadFilter(metadata=wanted) if field == "metadata" else ThreadFilter(values=wanted)
        return await found_ids(threads, where) == ["t1"]

    for wanted in stored.items():
        assert await found(dict([wanted]))
    assert await found({"deep": {"n": 1}})
    assert await found({"deep": {"list": [{"y": 2, "x": 1.0}]}})
    others: tuple[JsonObject, ...] = (
        {"tags": ["a"]},
        {"tags": ["b", "a"]},
        {"tags": []},
        {"tags": ["a", "b", "b"]},
        {"deep": {"list": [{"x": 1}]}},
        {"deep": {"list": []}},
        {"empty": [1]},
    )
    assert [wanted for wanted in others if await found(wanted)] == []


async def test_a_thread_whose_values_jsonb_cannot_hold_fails_no_search(
    given: Applying, threads: Threads, env: ProjectorEnv
) -> None:
    for name in ("t1", "t2"):
        facts = (thread_created(name), state_updated({"set": {"a": 1}}, thread=name))
        await given(*(draft(name, fact) for fact in facts))
    elements = 16_777_216  # one more is too much for jsonb
    text = """UPDATE read_v1.threads SET "values" = ('{"a":1,"b":[' || repeat('0,', $1) || '0]}')::json
               WHERE thread_id = 't1'"""
    async with env.pool.acquire() as connection:
        await connection.execute(text, elements)
    assert await found_ids(threads, ThreadFilter(values={"a": 1})) == ["t2"]


async def test_a_thread_expires_after_its_last_update_and_not_again_after_a_prune(
    given: Applying, threads: Threads
) -> None:
    ttl: JsonObject = {"strategy": "keep_latest", "ttl_minutes": 1.5}
    created = draft("t1", replace(thread_created(), ttl=ttl))
    await given(created)
    thread = await of(threads)
    assert (thread.ttl, thread.expires_at) == (ttl, created.occurred_at + timedelta(minutes=1.5))
    patch = draft("t1", patched({"a": 1}), stream="meta-t1")
    await given(patch)
    assert (await of(threads)).expires_at == patch.occurred_at + timedelta(minutes=1.5)
    await given(draft("t1", ThreadPruned(T1)))
    thread = await of(threads)
    assert (thread.expires_at, thread.updated_at, thread.ttl) == (None, patch.occurred_at, ttl)
    set_again = draft("t1", ThreadTtlSet(T1, {"strategy": "delete", "ttl_minutes": 1}), stream="meta-t1")
    await given(set_again)
    expiry = set_again.occurred_at + timedelta(minutes=1)
    assert (await of(threads)).expires_at == expiry
    await given(draft("t1", ThreadPruned(T1)))
    assert (await of(threads)).expires_at == expiry  # a prune does not keep a thread that has to be deleted


async def test_a_count_is_that_of_a_search_with_any_filter(given: Applying, threads: Threads) -> None:
    await given(
        draft("t1", thread_created("t1", {"a": 1, "tags": ["x", "y"]})),
        draft("t2", thread_created("t2", {"a": 1})),
        draft("t3", thread_created("t3", {"a": 2, "nul": "\x00"})),
    )
    for where, expected in (
        (ThreadFilter(), ["t1", "t2", "t3"]),
        (ThreadFilter(metadata={"a": 1}), ["t1", "t2"]),
        (ThreadFilter(metadata={"tags": ["x", "y"]}), ["t1"]),
        (ThreadFilter(metadata={"a": 1}, exclude_metadata=({"tags": ["x", "y"]},)), ["t2"]),
        (ThreadFilter(exclude_metadata=({"tags": ["x"]}, {"nul": "\x00"}, {})), ["t1", "t2"]),
        (ThreadFilter(ids=("t1", "t3"), status="idle"), ["t1", "t3"]),
        (ThreadFilter(status="busy"), []),
    ):
        assert await found_ids(threads, where) == expected
        assert await threads.count(where) == len(expected)
