"""Garbage collection of processes whose objects seldom form cycles: collections visit all objects and find nothing."""

import gc

FOLD_THRESHOLDS = (100_000, 20, 100)
"""For a process that only folds: a batch makes many objects and no cycles."""
WORKER_THRESHOLDS = (10_000, 10, 10)
"""For a worker. User code makes cycles, and a rarer collection would stop all runs for longer."""


def collect_rarely(thresholds: tuple[int, int, int]) -> None:
    """Set the thresholds of `gc`, and keep the objects of the start, such as modules, out of later collections."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)
