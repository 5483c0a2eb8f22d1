"""The state of a thread without the code of its graph: what the channels of its last checkpoint say."""

from langgraph.checkpoint.serde.base import SerializerProtocol

from agentlog_facts.checkpoint_reads import CheckpointReads, EncodedChannel
from agentlog_facts.graph_access import ThreadView
from agentlog_facts.ids import RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_infra.channel_codec import ChannelCodec
from agentlog_infra.state_json import is_state_key, to_json


class ChannelViews:
    """Reads states of threads whose graph is gone, raises, or hangs; which nodes are left to run is not known then."""

    def __init__(self, reads: CheckpointReads, serde: SerializerProtocol) -> None:
        self._reads = reads
        self._codec = ChannelCodec(serde)

    async def channels(self, thread_id: ThreadId, without: RunId | None = None) -> ThreadView:
        """Return the values of the last checkpoint that another run than `without` wrote. Raises: Unavailable."""
        found = await self._reads.latest(thread_id, "", without)
        if found is None:
            return ThreadView()
        shown: JsonObject = {
            name: to_json(self._value(channel)) for name, channel in found.channels.items() if is_state_key(name)
        }
        return ThreadView(values=shown, checkpoint_id=found.checkpoint_id)

    def _value(self, channel: EncodedChannel) -> object:
        return self._codec.decode_items(channel.items) if channel.kind == "list" else self._codec.decode(channel.value)
