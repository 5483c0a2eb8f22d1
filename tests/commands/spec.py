"""Language of the tests of deciders: given(*facts).when(command).then(*facts)."""

from collections.abc import Callable
from dataclasses import dataclass

from agentlog_commands.command import Accepted, Decision, Refused
from agentlog_facts.envelope import Fact
from agentlog_facts.thread import ThreadFact, ThreadState, evolve


@dataclass(frozen=True, slots=True)
class Then:
    """Decision of the command."""

    decision: Decision

    def then(self, *facts: Fact) -> Accepted:
        """Expect exactly these facts and return the decision, for a look at its demands."""
        assert isinstance(self.decision, Accepted), self.decision
        assert self.decision.facts == facts
        return self.decision

    def then_refused(self, reason: str) -> None:
        """Expect a refusal."""
        assert isinstance(self.decision, Refused), self.decision
        assert self.decision.reason == reason


@dataclass(frozen=True, slots=True)
class Given:
    """State after the facts; each fact is a commit of its own."""

    state: ThreadState

    def when(self, decide: Callable[[ThreadState], Decision]) -> Then:
        """Decide on that state."""
        return Then(decide(self.state))


def given(*facts: ThreadFact) -> Given:
    """Fold the facts; the version of each is its index."""
    state = ThreadState()
    for version, fact in enumerate(facts):
        state = evolve(state, fact, version)
    return Given(state)
