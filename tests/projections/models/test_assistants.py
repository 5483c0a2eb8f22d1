"""Read model of assistants: given facts, applied twice, then rows; and queries on them."""

from datetime import timedelta

import pytest
from tests.projections.facts import cancel_requested, run_created, run_finished, thread_created
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantRevised,
    AssistantVersionSelected,
)
from agentlog_facts.envelope import Draft
from agentlog_facts.ids import AssistantId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_projections.models.assistants import AssistantFilter, Assistants, OpenDeletion


@pytest.fixture
def assistants(env: ProjectorEnv) -> Assistants:
    return Assistants(env.pool)


def created(name: str, metadata: JsonObject | None = None) -> Draft:
    fact = AssistantCreated(AssistantId(name), "agent", {}, {}, metadata or {}, f"Name of {name}", None)
    return draft(name, fact, stream=f"assistant-{name}")


def revised(name: str, version: int, graph_id: str = "other") -> Draft:
    fact = AssistantRevised(AssistantId(name), version, graph_id, {"tags": []}, {}, {}, f"{name} {version}", "text")
    return draft(name, fact, stream=f"assistant-{name}")


async def test_a_revision_replaces_what_is_shown_and_keeps_all_versions(
    given: Applying, assistants: Assistants
) -> None:
    first, second, third = created("a"), revised("a", 2), revised("a", 3)
    await given(first, second, third)
    found = await assistants.get(AssistantId("a"))
    assert found is not None
    assert (found.version, found.name, found.graph_id, found.description) == (3, "a 3", "other", "text")
    assert (found.created_at, found.updated_at) == (first.occurred_at, third.occurred_at)
    versions = await assistants.versions(AssistantId("a"))
    assert [(one.version, one.created_at) for one in versions] == [
        (3, third.occurred_at),
        (2, second.occurred_at),
        (1, first.occurred_at),
    ]


async def test_assistants_are_found_by_metadata_graph_and_part_of_the_name(
    given: Applying, assistants: Assistants
) -> None:
    await given(created("a", {"team": {"id": 1}}), created("b"), revised("b", 2), created("c"))

    async def found(where: AssistantFilter) -> list[str]:
        return [one.assistant_id for one in await assistants.search(where, sort_by="name", descending=False)]

    assert await found(AssistantFilter()) == ["a", "c", "b"]
    assert await found(AssistantFilter(metadata={"team": {"id": 1}})) == ["a"]
    assert await found(AssistantFilter(metadata={"team": {"id": []}})) == []
    assert await found(AssistantFilter(graph_id="other")) == ["b"]
    assert await found(AssistantFilter(name="NAME OF")) == ["a", "c"]
    assert await assistants.count(AssistantFilter(graph_id="agent")) == 2
    assert await assistants.get(AssistantId("unknown")) is None


def selected(name: str, version: int) -> Draft:
    fact = AssistantVersionSelected(AssistantId(name), version, "agent", {}, {}, {}, f"{name} again", None)
    return draft(name, fact, stream=f"assistant-{name}")


def asked(name: str, *threads: str, runs: JsonObject | None = None) -> Draft:
    fact = AssistantDeletionAsked(AssistantId(name), tuple(map(ThreadId, threads)), runs or {})
    return draft(name, fact, stream=f"assistant-{name}")


def deleted(name: str) -> Draft:
    return draft(name, AssistantDeleted(AssistantId(name)), stream=f"assistant-{name}")


async def test_a_selected_version_is_shown_and_states_no_new_one(given: Applying, assistants: Assistants) -> None:
    await given(created("a"), revised("a", 2), last := selected("a", 1))
    found = await assistants.get(AssistantId("a"))
    assert found is not None
    assert (found.version, found.name, found.updated_at, found.revision) == (1, "a again", last.occurred_at, 2)
    assert [one.version for one in await assistants.versions(AssistantId("a"))] == [2, 1]
    second = await assistants.version(AssistantId("a"), 2)
    assert second is not None
    assert second.name == "a 2"
    assert await assistants.version(AssistantId("a"), 3) is None


async def test_versions_are_found_by_metadata(given: Applying, assistants: Assistants) -> None:
    await given(created("a", {"team": 1}), revised("a", 2))
    assert [one.version for one in await assistants.versions(AssistantId("a"), {"team": 1})] == [1]


async def test_a_deleted_assistant_is_found_by_nobody_and_created_again_as_version_one(
    given: Applying, assistants: Assistants
) -> None:
    await given(created("a"), revised("a", 2), deleted("a"))
    assert await assistants.get(AssistantId("a")) is None
    assert await assistants.versions(AssistantId("a")) == []
    assert await assistants.count(AssistantFilter()) == 0
    await given(again := created("a"))
    found = await assistants.get(AssistantId("a"))
    assert found is not None
    assert (found.version, found.created_at, found.revision) == (1, again.occurred_at, 3)
    assert [one.version for one in await assistants.versions(AssistantId("a"))] == [1]


async def test_an_open_deletion_is_told_until_it_is_done(given: Applying, assistants: Assistants) -> None:
    began = asked("a", "t1", "t2", runs={"r9": "t9"})
    await given(created("a"), began)
    assert await assistants.get(AssistantId("a")) is not None
    fact = began.facts[0]
    assert isinstance(fact, AssistantDeletionAsked)
    assert await assistants.open_deletions(timedelta()) == [OpenDeletion(began.event_id, fact)]
    assert await assistants.open_deletions(timedelta(days=20_000)) == []
    await given(deleted("a"))
    assert await assistants.open_deletions(timedelta()) == []


async def test_threads_and_active_runs_of_an_assistant_are_those_that_used_it(
    given: Applying, assistants: Assistants
) -> None:
    by_hand: JsonObject = {"assistant_id": "a1"}
    await given(
        draft("t1", thread_created("t1"), run_created("r1", thread="t1")),
        draft("t2", thread_created("t2", metadata=by_hand)),
        draft("t3", thread_created("t3"), run_created("r3", thread="t3"), run_finished("r3")),
    )
    assert await assistants.threads_of(AssistantId("a1")) == ["t1", "t3"]
    assert await assistants.active_runs_of(AssistantId("a1")) == {RunId("r1"): ThreadId("t1")}
    await given(draft("t1", cancel_requested("r1")))
    assert await assistants.active_runs_of(AssistantId("a1")) == {}
    assert await assistants.threads_of(AssistantId("other")) == []
