"""Pauses between retries: they grow up to a limit."""

from itertools import islice

from agentlog_facts.back_off import back_off


def test_pauses_double_up_to_the_longest() -> None:
    assert list(islice(back_off(0.5, 3.0), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]
