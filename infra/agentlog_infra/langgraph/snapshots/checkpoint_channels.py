"""Channels of one checkpoint: whether they have a value, and its JSON; decoded only if something must be computed."""

# pyright: reportMissingTypeStubs=false, reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# (these parts of langgraph are not in our stubs)

from collections.abc import Iterable, Mapping

from langgraph._internal._typing import MISSING
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.errors import EmptyChannelError
from langgraph.pregel._algo import PregelTaskWrites, apply_writes

from agentlog_facts.checkpoint import EncodedChannel
from agentlog_facts.json_value import dump
from agentlog_infra.langgraph.snapshots.channel_json import ChannelJson
from agentlog_infra.langgraph.snapshots.graph_plan import Channel, GraphPlan
from agentlog_infra.langgraph.value_json import to_json


class CheckpointChannels:
    """The channels of one checkpoint. A channel becomes an object of LangGraph only if its class computes a value."""

    def __init__(
        self,
        plan: GraphPlan,
        stored: Mapping[str, EncodedChannel],
        encoder: ChannelJson,
        replayed: Mapping[str, Channel],
    ) -> None:
        self._plan = plan
        self._stored = stored
        self._encoder = encoder
        self.user_code = encoder.user_code
        self._objects: dict[str, Channel] = dict(replayed)
        self._changed: set[str] = set(replayed)

    def is_available(self, name: str) -> bool:
        """Return whether a channel has a value."""
        if name not in self._objects:
            found = self._stored.get(name)
            if found is None and name in self._plan.empty:
                return False
            if self._is_plain(name):
                return found is not None or name in self._plan.defaults
        return self.channel(name).is_available()

    def json(self, name: str) -> bytes | None:
        """Return the value of a channel as JSON, None if it has none."""
        found = self._stored.get(name)
        if name not in self._objects and self._is_plain(name):
            return self._plan.defaults.get(name) if found is None else self._encoder.channel(found)
        try:
            value = self.channel(name).get()
        except EmptyChannelError:
            return None
        if found is not None and name not in self._changed and name in self._plan.plain and not _is_typed(found):
            return self._encoder.channel(found)
        return dump(to_json(value))

    def value(self, name: str) -> object:
        """Return the value of a channel that has one."""
        return self.channel(name).get()

    def channel(self, name: str) -> Channel:
        """Return a channel as an object of LangGraph. Raises: UserCodeNeeded."""
        known = self._objects.get(name)
        if known is None:
            if name in self._plan.of_users:
                self.user_code.run()
            found = self._stored.get(name)
            value = MISSING if found is None else self._encoder.decoded(found)
            known = self._objects[name] = self._plan.channels[name].from_checkpoint(value)
        return known

    def apply(self, writes: Iterable[PregelTaskWrites], *, whole_step: bool) -> None:
        """Apply pending writes, as LangGraph does before it shows a state. Raises: UserCodeNeeded, errors of reducers.

        With `whole_step` the writes end a step, of which all channels learn.
        """
        self.user_code.run()
        known = [one._replace(writes=[w for w in one.writes if w[0] in self._plan.channels]) for one in writes]
        written = {channel for one in known for channel, _ in one.writes}
        affected = self._plan.channels if whole_step else written
        channels = {name: self.channel(name) for name in affected}
        self._changed |= written
        apply_writes(empty_checkpoint(), channels, known, None, self._plan.trigger_to_nodes)

    def _is_plain(self, name: str) -> bool:
        """Return whether the stored value, or else the known default, is what the channel shows."""
        found = self._stored.get(name)
        is_known = name not in self._plan.of_users if found is None else not _is_typed(found)
        return is_known and name in self._plan.plain


def _is_typed(channel: EncodedChannel) -> bool:
    """Return whether only LangGraph's serializer can read the value: it may be a snapshot of a `DeltaChannel`."""
    return isinstance(channel.value, dict) and "base64" in channel.value
