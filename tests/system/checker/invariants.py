"""What must hold on every log: one end a run, and the one it was asked for; one claim a thread, nothing under a stale
epoch, an actor everywhere."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.system.checker.fold import Judged


@dataclass
class Verdicts:
    """What the checker found; `violations` is empty on a log that is right.

    `runs`: run -> status of its end, "deleted" where it or its thread went before it had one, "" while it is open.
    """

    runs: dict[str, str] = field(default_factory=dict[str, str])
    attempts: Counter[str] = field(default_factory=Counter[str])
    voids: Counter[str] = field(default_factory=Counter[str])
    violations: list[str] = field(default_factory=list[str])

    @property
    def open_runs(self) -> list[str]:
        """Return the runs that were created and have no end."""
        return [run_id for run_id, status in self.runs.items() if status == ""]


def check(judged: Iterable[Judged], promised_events: Iterable[str] = ()) -> Verdicts:
    """Judge the invariants; `promised_events`: event ids behind answers that clients saw (each must count once)."""
    found = Verdicts()
    accepted: Counter[str] = Counter()
    versions: dict[tuple[str, str], int] = {}
    claims: defaultdict[str, dict[str, int]] = defaultdict(dict)
    active: defaultdict[str, set[str]] = defaultdict(set)
    homes: dict[str, int] = {}
    asked: dict[str, str] = {}
    for commit in judged:
        place = f"{commit.record.partition}:{commit.record.offset}"
        if not commit.record.value.get("actor"):
            found.violations.append(f"{place}: no actor")
        if commit.verdict != "accepted":
            found.voids[commit.verdict] += 1
            continue
        accepted[str(commit.record.value["event_id"])] += 1
        home = homes.setdefault(commit.record.key, commit.record.partition)
        if home != commit.record.partition:
            found.violations.append(f"{place}: {commit.record.key} belongs to partition {home}")
        _versions(found, versions, commit, place)
        _runs(found, active[commit.record.key], commit, place)
        _fences(found, claims[commit.record.key], commit, place)
        _rollbacks(found, asked, commit, place)
    found.violations += [f"event {event} counts {n} times" for event, n in accepted.items() if n > 1]
    found.violations += [
        f"event {event} was promised and is not there" for event in promised_events if not accepted[event]
    ]
    return found


def _versions(found: Verdicts, versions: dict[tuple[str, str], int], commit: Judged, place: str) -> None:
    """I6: versions of a stream have no gaps (a run's own stream begins again with each life)."""
    name = (commit.record.key, commit.stream)
    expected = versions.get(name, -1) + 1
    if commit.version not in (expected, 0 if commit.stream.startswith("run-") else expected):
        found.violations.append(f"{place}: {commit.stream} version {commit.version}, expected {expected}")
    versions[name] = commit.version


def _runs(found: Verdicts, active: set[str], commit: Judged, place: str) -> None:
    """I2: a run is created once and ends once, by its own end or by being deleted, alone or with its thread."""
    for kind, data in commit.facts:
        run_id = str(data.get("run_id"))
        if kind == "RunCreated":
            if run_id in found.runs:
                found.violations.append(f"{place}: run {run_id} is created again")
            found.runs[run_id] = ""
            active.add(run_id)
        elif kind == "RunClaimed":
            found.attempts[run_id] += 1
        elif kind == "RunFinished":
            if found.runs.get(run_id) != "":
                found.violations.append(f"{place}: run {run_id} ends a second time")
            found.runs[run_id] = str(data["status"])
            active.discard(run_id)
        elif kind in ("RunDeleted", "ThreadDeleted"):
            gone = active & {run_id} if kind == "RunDeleted" else set(active)
            found.runs.update(dict.fromkeys(gone, "deleted"))
            active -= gone


def _rollbacks(found: Verdicts, asked: dict[str, str], commit: Judged, place: str) -> None:
    """I2: a run that was asked to be rolled back before it ended ends as that and nothing else.

    The first request decides: a run that was asked before to be interrupted ends as that. One that is deleted in the
    commit that ends it leaves nothing either.
    """
    deleted = {str(data["run_id"]) for kind, data in commit.facts if kind == "RunDeleted"}
    for kind, data in commit.facts:
        run_id = str(data.get("run_id"))
        if kind == "RunCancelRequested":
            asked.setdefault(run_id, str(data["action"]))
        elif kind == "RunFinished" and asked.get(run_id) == "rollback" and run_id not in deleted:
            if data["status"] != "rollback":
                found.violations.append(f"{place}: run {run_id} was to be rolled back and ends as {data['status']}")


def _fences(found: Verdicts, claims: dict[str, int], commit: Judged, place: str) -> None:
    """I2 and I3: one claim a thread; whatever is written under an epoch is written by the claim that has it."""
    epoch, stream = commit.epoch, commit.stream
    writers = {stream.removeprefix("run-")} if stream.startswith("run-") else set[str]()
    for kind, data in commit.facts:
        if kind in ("RunFinished", "RunAlive", "RunReleased") and epoch is not None:
            writers.add(str(data["run_id"]))
    for run_id in writers:
        if epoch is None or claims.get(run_id) != epoch:
            held = claims.get(run_id)
            found.violations.append(f"{place}: run {run_id} writes under epoch {epoch}, its claim has {held}")
    for kind, data in commit.facts:
        run_id = str(data.get("run_id"))
        if kind == "RunClaimed":
            found.violations += [f"{place}: {run_id} is claimed beside {other}" for other in claims]
            claims[run_id] = commit.version
        elif kind == "RunReleased":
            if claims.pop(run_id, None) != data["epoch"]:
                found.violations.append(f"{place}: {run_id} is released from epoch {data['epoch']}, not its own")
        elif kind in ("RunFinished", "RunDeleted"):
            claims.pop(run_id, None)
        elif kind == "ThreadDeleted":
            claims.clear()


def accepted_tasks(judged: Iterable[Judged]) -> dict[str, dict[int, set[str]]]:
    """Return run -> epoch -> names of the nodes whose writes were accepted under that epoch."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for commit in judged:
        if commit.verdict != "accepted" or not commit.stream.startswith("run-") or commit.epoch is None:
            continue
        run_id = commit.stream.removeprefix("run-")
        for kind, data in commit.facts:
            if kind == "WritesSaved":
                node = str(data["task_path"]).rpartition(",")[2].strip()
                found[run_id][commit.epoch].add(node)
    return found


def epochs(judged: Iterable[Judged]) -> dict[str, list[int]]:
    """Return run -> epochs of its accepted claims, oldest first."""
    found: dict[str, list[int]] = defaultdict(list)
    for commit in judged:
        if commit.verdict == "accepted":
            for kind, data in commit.facts:
                if kind == "RunClaimed":
                    found[str(data["run_id"])].append(commit.version)
    return found
