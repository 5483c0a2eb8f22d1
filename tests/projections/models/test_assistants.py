"""Read model of assistants: given facts, applied twice, then rows; and queries on them."""

import pytest
from tests.projections.models.applying import Applying
from tests.projections.projector_env import ProjectorEnv, draft

from agentlog_facts.assistant import AssistantCreated, AssistantRevised
from agentlog_facts.envelope import Draft
from agentlog_facts.ids import AssistantId
from agentlog_facts.json_value import JsonObject
from agentlog_projections.models.assistants import AssistantFilter, Assistants


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
