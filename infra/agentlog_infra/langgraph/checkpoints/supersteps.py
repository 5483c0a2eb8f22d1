"""Which checkpoints end a superstep in which a node ran: LangGraph makes one for the input and one for START too."""

from langgraph.constants import START

from agentlog_facts.checkpoint import CheckpointFact, CheckpointSaved
from agentlog_facts.json_value import Json


class Supersteps:
    """Looks at the checkpoints of one attempt in their order, each namespace by itself."""

    def __init__(self) -> None:
        self._inputs: dict[str, Json] = {}
        """What the nodes had seen at the last input of a namespace, while nothing followed it."""

    def ends(self, fact: CheckpointFact) -> bool:
        """Tell whether a fact is the checkpoint behind a node; in doubt it is."""
        if not isinstance(fact, CheckpointSaved):
            return False
        source, seen = fact.metadata.get("source"), fact.checkpoint.get("versions_seen")
        if source == "input":
            self._inputs[fact.checkpoint_ns] = seen
            return False
        before = self._inputs.pop(fact.checkpoint_ns, None)
        return source == "loop" and _ran(before, seen) != {START}


def _ran(before: Json, after: Json) -> set[str]:
    """Return the nodes that saw something new between two checkpoints; none where that cannot be told."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return set()
    return {node for node, seen in after.items() if seen != before.get(node)}
