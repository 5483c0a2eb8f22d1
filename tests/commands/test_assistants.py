"""Commands of assistants, one sentence each."""

from agentlog_commands.assistants import EnsureSystemAssistant, system_assistant_id
from agentlog_commands.command import Accepted, Refused
from agentlog_facts.assistant import AssistantCreated, AssistantRevised, AssistantState, evolve


def created() -> AssistantCreated:
    decision = EnsureSystemAssistant("agent", "old").decide(AssistantState())
    assert isinstance(decision, Accepted)
    fact = decision.facts[0]
    assert isinstance(fact, AssistantCreated)
    return fact


def test_the_system_assistants_id_is_the_official_one() -> None:
    assert system_assistant_id("agent") == "fe096781-5601-53d2-b2f6-0d3403f7e9ca"


def test_a_graph_gets_its_assistant_once() -> None:
    state = evolve(AssistantState(), created())
    assert EnsureSystemAssistant("agent", "old").decide(state) == Refused("nothing_to_do")


def test_a_new_description_is_a_new_version() -> None:
    decision = EnsureSystemAssistant("agent", "new").decide(evolve(AssistantState(), created()))
    assert isinstance(decision, Accepted)
    fact = decision.facts[0]
    assert isinstance(fact, AssistantRevised)
    assert (fact.version, fact.description) == (2, "new")
