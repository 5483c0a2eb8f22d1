"""What clients and user code noted down while a server ran: what they sent, what they were told, which steps began."""

from dataclasses import dataclass, field

from tests.system.checker.records import Json, Value


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes something, and its answer; `status` 0: none came. `key`: its Idempotency-Key or ""."""

    client: str
    method: str
    path: str
    body: str
    status: int
    key: str = ""
    thread_id: str = ""
    run_id: str = ""
    token: str = ""

    @property
    def promised(self) -> bool:
        """Tell whether the client was told that it happened."""
        return 200 <= self.status < 300

    @property
    def place(self) -> tuple[int, int] | None:
        """Return (partition, offset) of the commit behind the answer, as its consistency token names it."""
        parts = self.token.split(":")
        return (int(parts[1]), int(parts[2])) if len(parts) == 3 else None


@dataclass(frozen=True, slots=True)
class Look:
    """A read and what it showed, in the order of one client's reads; `token`: what it had to have seen, or ""."""

    client: str
    thread_id: str
    token: str = ""
    checkpoint_id: str = ""
    run_id: str = ""
    run_status: str = ""

    @property
    def place(self) -> tuple[int, int] | None:
        """Return (partition, offset) that the token names."""
        parts = self.token.split(":")
        return (int(parts[1]), int(parts[2])) if len(parts) == 3 else None


@dataclass(frozen=True, slots=True)
class Shown:
    """All that the API says of a thread after everything has ended. `runs`: run -> status."""

    thread_id: str
    status: str
    values: Value
    next: Value
    runs: dict[str, str]


@dataclass(frozen=True, slots=True)
class Effect:
    """User code of a step began: the side effects of this attempt of the run may have happened."""

    run_id: str
    step: str
    attempt: int


@dataclass
class Notes:
    """Everything that was noted in one test, in the order of each client."""

    changes: list[Change] = field(default_factory=list[Change])
    all_threads: bool = True
    """Whether every request for a thread is among the changes, if any is."""
    looks: list[Look] = field(default_factory=list[Look])
    shown: list[Shown] = field(default_factory=list[Shown])
    effects: list[Effect] = field(default_factory=list[Effect])
    streams: dict[str, list[tuple[str, Value]]] = field(default_factory=dict[str, list[tuple[str, Value]]])
    """Run -> (event, data) of its whole stream, as a client that joined it from its start was told."""
    counting: bool = False
    """Gateways run that may have refused more than they have told the log: a burst is told as a count, later."""
    queued: dict[str, list[str]] | None = None
    """Graph -> ids in its list in Redis, read while no worker could take one; None: not looked at."""
    ledger: dict[tuple[int, int], tuple[str, int | None]] | None = None
    """Place -> verdict and version that the server's own rows hold; None: not looked at."""


def text(value: Json, name: str) -> str:
    """Return a field as text, "" where there is none."""
    found = value.get(name)
    return found if isinstance(found, str) else ""
