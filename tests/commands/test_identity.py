"""Ids of requests: the same for each retry of a keyed request, different for any other request."""

from agentlog_commands.identity import digest, follow_up, identify
from agentlog_facts.envelope import Actor

ANA, BOB = Actor("user", "ana"), Actor("user", "bob")


class Numbers:
    """Ids that can be counted."""

    def __init__(self) -> None:
        self.last = 0

    def uuid7(self) -> str:
        self.last += 1
        return f"00000000-0000-7000-8000-{self.last:012d}"


def test_a_retry_of_a_keyed_request_gets_the_same_ids() -> None:
    ids = Numbers()
    first, again = (identify(ANA, "POST", "/threads", "k", ids) for _ in range(2))
    assert first == again
    assert first.derived("thread", ids) == again.derived("thread", ids)
    assert ids.last == 0


def test_caller_method_path_key_and_item_all_count() -> None:
    ids = Numbers()
    found = {
        identify(ANA, "POST", "/threads", "k", ids).event_id,
        identify(BOB, "POST", "/threads", "k", ids).event_id,
        identify(ANA, "PATCH", "/threads", "k", ids).event_id,
        identify(ANA, "POST", "/threads/1", "k", ids).event_id,
        identify(ANA, "POST", "/threads", "l", ids).event_id,
        identify(ANA, "POST", "/threads", "k", ids, item=0).event_id,
    }
    assert len(found) == 6


def test_without_a_key_every_request_is_new() -> None:
    ids = Numbers()
    first = identify(ANA, "POST", "/threads", None, ids)
    assert first != identify(ANA, "POST", "/threads", None, ids)
    assert first.derived("thread", ids) != first.derived("thread", ids)


def test_further_commits_of_an_intent_have_ids_of_their_own() -> None:
    event_id = identify(ANA, "POST", "/threads", "k", Numbers()).event_id
    assert len({event_id, follow_up(event_id, 1), follow_up(event_id, 2)}) == 3
    assert digest(b"a") != digest(b"b")
