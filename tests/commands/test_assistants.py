"""Commands of assistants, one sentence each."""

from collections.abc import Callable

from agentlog_commands.assistants import (
    CreateAssistant,
    DeleteAssistant,
    EnsureSystemAssistant,
    FinishDeletion,
    PatchAssistant,
    SelectVersion,
    mirror,
    system_assistant_id,
)
from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_commands.metadata_limit import MetadataLimit
from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantFact,
    AssistantRevised,
    AssistantState,
    AssistantVersionSelected,
    evolve,
)
from agentlog_facts.ids import AssistantId, RunId, Stream, ThreadId
from agentlog_facts.json_value import JsonObject

A, T, R = AssistantId("a"), ThreadId("t"), RunId("r")
ON_A = Stream("assistant-a")
CREATED = AssistantCreated(A, "agent", {"tags": ["x"]}, {}, {"one": 1}, "Ana", "first")
SECOND = AssistantRevised(A, 2, "agent", {}, {}, {}, "Bob", None)
SELECTED = AssistantVersionSelected(A, 1, "agent", {"tags": ["x"]}, {}, {"one": 1}, "Ana", "first")
ASKED = AssistantDeletionAsked(A, (T,), {"r": "t2"})
Deciding = Callable[[AssistantState, int | None], Decision]


def after(*facts: AssistantFact) -> tuple[AssistantState, int | None]:
    """Return the state after these facts, each a commit of its own, and the version of the stream."""
    state = AssistantState()
    for fact in facts:
        state = evolve(state, fact)
    return state, len(facts) - 1 if facts else None


def accepted(decide: Deciding, *facts: AssistantFact) -> Accepted:
    decision = decide(*after(*facts))
    assert isinstance(decision, Accepted), decision
    return decision


def refused(decide: Deciding, *facts: AssistantFact) -> str:
    decision = decide(*after(*facts))
    assert isinstance(decision, Refused), decision
    return decision.reason


def patched(command: PatchAssistant, *facts: AssistantFact) -> AssistantRevised:
    fact = accepted(command.decide, *(facts or (CREATED,))).facts[0]
    assert isinstance(fact, AssistantRevised)
    return fact


def test_the_system_assistants_id_is_the_official_one() -> None:
    assert system_assistant_id("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


def test_a_graph_gets_its_assistant_once_and_again_after_its_deletion() -> None:
    command = EnsureSystemAssistant("agent", "old")
    made = command.decide(AssistantState(), None, None)
    assert isinstance(made, Accepted)
    assert list(made.demands.values()) == ["absent"]
    created = made.facts[0]
    assert isinstance(created, AssistantCreated)
    assert (created.name, created.metadata) == ("agent", {"created_by": "system"})
    assert command.decide(*after(created), "old") == Refused("nothing_to_do")
    again = command.decide(*after(created, AssistantDeleted(created.assistant_id)), "old")
    assert isinstance(again, Accepted)
    assert (again.facts, list(again.demands.values())) == ((created,), [1])


def test_a_new_description_of_a_graph_is_a_new_version_and_a_description_by_a_client_stays() -> None:
    decision = EnsureSystemAssistant("agent", "new").decide(*after(CREATED), "old")
    assert isinstance(decision, Accepted)
    assert decision.facts == (AssistantRevised(A, 2, "agent", {"tags": ["x"]}, {}, {"one": 1}, "Ana", "new"),)
    assert EnsureSystemAssistant("agent", "old").decide(*after(CREATED), "old") == Refused("nothing_to_do")


def test_config_and_context_of_a_new_assistant_fill_each_other() -> None:
    one = accepted(CreateAssistant(A, "agent", context={"model": "m"}).decide).facts[0]
    other = accepted(CreateAssistant(A, "agent", {"configurable": {"model": "m", "thread_id": "t"}}).decide).facts[0]
    assert isinstance(one, AssistantCreated)
    assert isinstance(other, AssistantCreated)
    assert (one.config, one.context) == ({"configurable": {"model": "m"}}, {"model": "m"})
    assert other.context == {"model": "m"}
    assert one.name == "Untitled"


def test_config_and_context_are_not_both_given() -> None:
    config: JsonObject = {"configurable": {"a": 1}}
    assert refused(CreateAssistant(A, "agent", config, {"b": 2}).decide) == "context_and_configurable"
    assert refused(PatchAssistant(A, config=config, context={"b": 2}).decide, CREATED) == "context_and_configurable"
    assert mirror({"configurable": {}, "tags": []}, {"b": 2}) == ({"configurable": {"b": 2}, "tags": []}, {"b": 2})


def test_an_assistant_exists_until_its_deletion_is_done() -> None:
    create = CreateAssistant(A, "agent").decide
    assert refused(create, CREATED) == refused(create, CREATED, ASKED) == "assistant_exists"
    again = accepted(create, CREATED, SECOND, AssistantDeleted(A))
    assert again.demands == {ON_A: 2}


def test_a_patch_keeps_what_it_does_not_name_and_counts_from_the_newest_version() -> None:
    assert patched(PatchAssistant(A)) == AssistantRevised(
        A, 2, "agent", {"tags": ["x"]}, {}, {"one": 1}, "Ana", "first"
    )
    later = patched(PatchAssistant(A, name="Cid"), CREATED, SECOND, SELECTED)
    assert (later.version, later.name, later.description) == (3, "Cid", "first")
    assert accepted(PatchAssistant(A).decide, CREATED, SECOND).demands == {ON_A: 1}


def test_a_patch_merges_metadata_and_replaces_the_config_unless_it_is_empty() -> None:
    given = patched(PatchAssistant(A, config={"configurable": {"m": 1}}, metadata={"two": 2}))
    assert (given.config, given.context) == ({"configurable": {"m": 1}}, {"m": 1})
    assert given.metadata == {"one": 1, "two": 2}
    assert patched(PatchAssistant(A, config={}, context={})).config == {"tags": ["x"]}
    assert patched(PatchAssistant(A, context={"m": 2})).config == {"tags": ["x"], "configurable": {"m": 2}}
    assert patched(PatchAssistant(A, config={"tags": []}), CREATED, given).context == {}


def test_metadata_has_a_limit_also_after_a_merge() -> None:
    limit = MetadataLimit(max_bytes=20)
    assert refused(CreateAssistant(A, "agent", metadata={"long": "x" * 30}, limit=limit).decide) == "metadata_too_large"
    assert refused(PatchAssistant(A, metadata={"two": "x" * 9}, limit=limit).decide, CREATED) == "metadata_too_large"


def test_an_earlier_version_is_selected_and_an_unknown_one_refused() -> None:
    assert accepted(SelectVersion(A, SELECTED).decide, CREATED, SECOND).facts == (SELECTED,)
    assert refused(SelectVersion(A, None).decide, CREATED) == "version_not_found"
    state, _ = after(CREATED, SECOND, SELECTED)
    assert (state.current, state.newest) == (SELECTED, 2)


def test_nothing_changes_an_assistant_that_does_not_exist_or_is_being_deleted() -> None:
    for decide in (PatchAssistant(A).decide, SelectVersion(A, SELECTED).decide, DeleteAssistant(A).decide):
        assert refused(decide) == refused(decide, CREATED, AssistantDeleted(A)) == "assistant_not_found"
        assert refused(decide, CREATED, ASKED) == "assistant_deleting"
    assert EnsureSystemAssistant("agent", "new").decide(*after(CREATED, ASKED), "old") == Refused("nothing_to_do")


def test_a_deletion_that_others_follow_is_asked_for_and_done_once() -> None:
    assert accepted(DeleteAssistant(A).decide, CREATED).facts == (AssistantDeleted(A),)
    asked = accepted(DeleteAssistant(A, (T,), {R: ThreadId("t2")}).decide, CREATED)
    assert (asked.facts, asked.demands) == ((ASKED,), {ON_A: 0})
    assert accepted(FinishDeletion(A).decide, CREATED, ASKED).facts == (AssistantDeleted(A),)
    assert refused(FinishDeletion(A).decide, CREATED, ASKED, AssistantDeleted(A)) == "nothing_to_do"
    assert refused(FinishDeletion(A).decide, CREATED) == "nothing_to_do"
