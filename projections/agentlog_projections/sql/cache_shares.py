"""Byte budget of the caches of one projector, and the share of each of them."""

from dataclasses import dataclass

CACHE_BYTES = 64 * 1024 * 1024
"""Bytes that the caches of one projector may take together, if no setting says otherwise."""


@dataclass(frozen=True, slots=True)
class CacheShares:
    """Shares of a budget, in bytes: of the ledger's aggregates, and of the rows of threads and runs."""

    ledger: int
    threads: int
    runs: int


def cache_shares(cache_bytes: int = CACHE_BYTES) -> CacheShares:
    """Divide a budget: two fifths are for the ledger, two for threads, one is for runs."""
    fifth = cache_bytes // 5
    return CacheShares(ledger=2 * fifth, threads=2 * fifth, runs=fifth)
