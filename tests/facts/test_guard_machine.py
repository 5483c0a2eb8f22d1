"""Invariants of the guard under any commits in any order."""

from hypothesis import given, settings, strategies as st
from tests.facts import commits as c
from tests.facts.commits import ON_META, ON_THREAD, Log, commit

from agentlog_facts.envelope import Demand, Draft, Fact
from agentlog_facts.guard import Accepted, guard
from agentlog_facts.ids import Stream
from agentlog_facts.thread import RunCreated, RunDeleted, RunFinished

RUNS = st.sampled_from(["r1", "r2", "r3"])
NUMBERS = st.integers(0, 8)
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.builds(c.thread_created),
    st.builds(c.thread_deleted),
    st.builds(c.state_updated),
    st.builds(c.run_created, RUNS),
    st.builds(c.run_claimed, RUNS, st.integers(1, 3)),
    st.builds(c.run_released, RUNS, NUMBERS),
    st.builds(c.cancel_requested, RUNS),
    st.builds(c.run_finished, RUNS, st.booleans()),
    st.builds(c.run_deleted, RUNS, st.booleans()),
)
DEMANDS: st.SearchStrategy[Demand | None] = st.one_of(st.none(), st.sampled_from(["absent", "exists"]), NUMBERS)
STREAMS = st.sampled_from([ON_THREAD, ON_THREAD, ON_META, Stream("run-r1"), Stream("run-r2")])


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    demand = draw(DEMANDS)
    return commit(
        *draw(st.lists(FACTS, min_size=1, max_size=3)),
        stream=draw(STREAMS),
        demands={} if demand is None else {draw(st.sampled_from([ON_THREAD, ON_META])): demand},
        epoch=draw(st.one_of(st.none(), NUMBERS)),
        event_id=draw(st.one_of(st.none(), st.sampled_from(["e1", "e2"]))),
        body=draw(st.sampled_from(["a", "a", "b"])),
    )


@given(st.lists(drafts(), max_size=30))
@settings(max_examples=300, deadline=None)
def test_the_log_keeps_its_invariants(history: list[Draft]) -> None:
    log = Log()
    versions: dict[Stream, int] = {}
    for draft in history:
        before, prior = log.head, log.accepted.get(draft.event_id)
        verdict = log.append(draft)
        assert verdict == guard(before, prior, draft), "a verdict is a function of the prefix"
        if not isinstance(verdict, Accepted):
            assert log.head == before, "what is not accepted changes nothing"
            continue
        expected = versions.get(draft.stream, -1) + 1
        fresh = draft.stream.startswith("run-") and draft.stream not in before.versions
        assert verdict.version == (0 if fresh else expected), "versions are dense"
        versions[draft.stream] = verdict.version
        claimed = [run for run in log.head.runs.values() if run.epoch is not None]
        assert len(claimed) <= 1, "a thread has at most one claimed run"
        assert draft.epoch is None or any(run.epoch == draft.epoch for run in before.runs.values())


@given(st.lists(drafts(), max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_run_ends_at_most_once_per_life(history: list[Draft]) -> None:
    log = Log()
    active: set[str] = set()
    for draft in history:
        if not isinstance(log.append(draft), Accepted):
            continue
        for fact in draft.facts:
            match fact:
                case RunCreated():
                    active.add(fact.run_id)
                case RunFinished():
                    assert fact.run_id in active
                    active.discard(fact.run_id)
                case RunDeleted():
                    active.discard(fact.run_id)
                case _:
                    pass
        active &= set(log.head.runs)
        assert active == set(log.head.runs)
