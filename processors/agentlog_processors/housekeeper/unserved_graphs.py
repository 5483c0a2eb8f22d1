"""Graphs that no worker serves although runs wait for them, with the time since when the housekeeper sees that."""

from collections.abc import Callable, Collection
from datetime import timedelta

ServedGraphs = Callable[[], Collection[str] | None]
"""Returns the ids of the graphs that workers serve now, None if they are not known."""


class UnservedGraphs:
    """Waiting graphs that were not served at any look since the first one that found them so.

    A look at which the served graphs are not known, and a new process, begin again: only an uninterrupted observation
    may end runs.
    """

    def __init__(self, served: ServedGraphs) -> None:
        self._read_served = served
        self._served: Collection[str] | None = None
        self._since: dict[str, float] = {}
        self._now_s = 0.0

    def look(self, now_s: float) -> None:
        """Read which graphs are served now. `now_s` is monotonic, in seconds."""
        self._now_s, self._served = now_s, self._read_served()
        served = self._served
        self._since = {} if served is None else {name: at for name, at in self._since.items() if name not in served}

    def add(self, waiting: Collection[str]) -> None:
        """Add the graphs for which runs wait and that were not served at the last look."""
        if self._served is not None:
            for graph_id in waiting:
                if graph_id not in self._served:
                    self._since.setdefault(graph_id, self._now_s)

    def for_at_least(self, length: timedelta) -> Collection[str]:
        """Return the graphs that have not been served for this long."""
        return [name for name, at in self._since.items() if self._now_s - at >= length.total_seconds()]
