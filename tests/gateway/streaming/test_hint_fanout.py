"""How the parts of one process share the hints that are read once."""

from collections.abc import Callable

from tests.gateway.stream_env import Hints

from agentlog_facts.notification import Hint
from agentlog_gateway.streaming.hint_fanout import BUFFERED, SharedHints


class Source:
    """Whoever reads the feed."""

    def __init__(self) -> None:
        self.tell: Callable[[Hint], None] | None = None

    def listen(self, listener: Callable[[Hint], None]) -> None:
        self.tell = listener


def hint(number: int) -> Hint:
    return Hint(0, number - 1, number)


async def test_every_listener_gets_every_hint_and_a_slow_one_loses_the_oldest() -> None:
    source = Source()
    shared = SharedHints(Hints(), source)
    assert source.tell is not None
    async with shared.subscribe() as one, shared.subscribe() as other:
        for number in range(BUFFERED + 1):
            source.tell(hint(number))
            if number < BUFFERED:
                assert await anext(one) == hint(number)
        assert await anext(one) == hint(BUFFERED)
        assert await anext(other) == hint(1)
    source.tell(hint(0))
