"""Tests of the byte budget of a projector's caches."""

import pytest

from agentlog_infra.settings import Settings
from agentlog_projections.sql.cache_shares import CACHE_BYTES, cache_shares


@pytest.mark.parametrize("budget", [CACHE_BYTES, 1024 * 1024 + 3])
def test_the_caches_of_a_projector_take_no_more_than_its_budget(budget: int) -> None:
    shares = cache_shares(budget)
    assert budget - 5 < shares.ledger + shares.threads + shares.runs <= budget
    assert min(shares.ledger, shares.threads, shares.runs) > 0


def test_a_projector_without_settings_has_the_budget_of_the_settings() -> None:
    assert Settings.load().projector_cache_bytes == CACHE_BYTES
