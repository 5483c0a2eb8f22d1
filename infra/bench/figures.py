"""Figures of a case over all rounds, and their line in the table as median and range."""

import statistics
from dataclasses import dataclass, field

from bench.works import Case, Round

HEAD = """\
| case (clients) | per s | p50 ms | p95 ms | p99 ms | server CPU ms each | more | to reach |
|---|---|---|---|---|---|---|---|"""


@dataclass
class Figures:
    """One case over all rounds: each list has one figure per round; `failed` is the reason for missing rounds."""

    name: str
    clients: int
    reach: str
    per_s: list[float] = field(default_factory=list[float])
    p50_ms: list[float] = field(default_factory=list[float])
    p95_ms: list[float] = field(default_factory=list[float])
    p99_ms: list[float] = field(default_factory=list[float])
    first_p50_ms: list[float] = field(default_factory=list[float])
    cpu_ms: list[float] = field(default_factory=list[float])
    notes: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    failed: str | None = None

    @classmethod
    def of(cls, case: Case) -> "Figures":
        """Return the empty figures of a case."""
        return cls(case.name, case.clients, case.reach)

    def add(self, seen: Round, cpu_s: float | None) -> None:
        """Add one round; `cpu_s` is the CPU time of the server's processes, None if it is unknown."""
        count = seen.count or len(seen.took_s)
        self.per_s.append(count / seen.all_s)
        for name, share in (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            if seen.took_s:
                getattr(self, name).append(1000 * quantile(seen.took_s, share))
        if seen.first_s:
            self.first_p50_ms.append(1000 * quantile(seen.first_s, 0.5))
        if cpu_s is not None:
            self.cpu_ms.append(1000 * (cpu_s + seen.cpu_s) / count)
        for name, value in seen.notes.items():
            self.notes.setdefault(name, []).append(value)

    def row(self) -> str:
        """Return a line of the table."""
        cells = [f"{self.name} ({self.clients})"]
        cells += [spread(values) for values in (self.per_s, self.p50_ms, self.p95_ms, self.p99_ms, self.cpu_ms)]
        notes = {"first p50 ms": self.first_p50_ms, **self.notes} if self.first_p50_ms else self.notes
        more = [f"{name} {spread(values)}" for name, values in notes.items()]
        if self.failed is not None:
            more.append(f"FAILED: {self.failed}")
        return "| " + " | ".join([*cells, "; ".join(more), self.reach]) + " |"


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of all values lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def spread(values: list[float]) -> str:
    """Return median and range, or a dash if nothing was measured."""
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{statistics.median(values):.4g} ({min(values):.4g}-{max(values):.4g})"
