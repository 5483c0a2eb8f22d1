"""Which commits count: the rules of docs/log.md and ARCHITECTURE.md, written a second time, on plain dictionaries."""

from dataclasses import dataclass, field

from tests.system.checker.records import Json, Record, Value


@dataclass(frozen=True, slots=True)
class Judged:
    """A commit with its verdict: "accepted", "duplicate" or the reason of its void."""

    record: Record
    verdict: str
    version: int

    @property
    def stream(self) -> str:
        """Return the stream of the commit."""
        return str(self.record.value["stream"])

    @property
    def facts(self) -> list[tuple[str, Json]]:
        """Return (type, data) of its facts."""
        return facts_of(self.record.value)

    @property
    def epoch(self) -> int | None:
        """Return the epoch under which it was written."""
        epoch = self.record.value.get("epoch")
        return epoch if isinstance(epoch, int) else None


def facts_of(value: Json) -> list[tuple[str, Json]]:
    """Return (type, data) of the facts of a commit."""
    found: list[tuple[str, Json]] = []
    listed = value.get("facts")
    for fact in listed if isinstance(listed, list) else []:
        if isinstance(fact, dict) and isinstance(data := fact["data"], dict):
            found.append((str(fact["type"]), data))
    return found


@dataclass
class _Run:
    attempts: int = 0
    epoch: int | None = None
    stopping: bool = False


@dataclass
class _Aggregate:
    there: bool = False
    versions: dict[str, int] = field(default_factory=dict[str, int])
    runs: dict[str, _Run] = field(default_factory=dict[str, _Run])
    seen: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])

    def copy_runs(self) -> dict[str, _Run]:
        return {name: _Run(run.attempts, run.epoch, run.stopping) for name, run in self.runs.items()}


def judge(records: list[Record]) -> list[Judged]:
    """Judge every commit in log order; each aggregate key stands alone."""
    aggregates: dict[str, _Aggregate] = {}
    judged: list[Judged] = []
    for record in records:
        aggregate = aggregates.setdefault(record.key, _Aggregate())
        verdict, version = _verdict(aggregate, record.value) if record.value.get("facts") else ("unreadable", -1)
        judged.append(Judged(record, verdict, version))
    return judged


def _verdict(now: _Aggregate, commit: Json) -> tuple[str, int]:
    event, body, stream = str(commit["event_id"]), str(commit["body_sha256"]), str(commit["stream"])
    if event in now.seen:
        first_body, version = now.seen[event]
        return ("duplicate", version) if first_body == body else ("idempotency_key_reused", -1)
    refusal = _demanded(now, commit) or _fenced(now, commit)
    if refusal:
        return refusal, -1
    version = now.versions.get(stream, -1) + 1
    runs, kept = now.runs, now.copy_runs()
    now.runs = kept
    for kind, data in facts_of(commit):
        refusal = _take(now, commit, kind, data, version)
        if refusal:
            now.runs = runs
            return refusal, -1
    _settle(now, commit, stream, version)
    now.seen[event] = (body, version)
    return "accepted", version


def _settle(now: _Aggregate, commit: Json, stream: str, version: int) -> None:
    now.versions[stream] = version
    kinds = [kind for kind, _ in facts_of(commit)]
    if stream.split("-")[0] in ("assistant", "cron", "store", "system", "partition"):
        now.there = True
    for kind in kinds:
        if kind in ("ThreadCreated", "ThreadDeleted"):
            now.there = kind == "ThreadCreated"
    active = {f"run-{run_id}" for run_id in now.runs}
    if stream.startswith("run-") or any(kind in ("RunFinished", "RunDeleted", "ThreadDeleted") for kind in kinds):
        for name in [name for name in now.versions if name.startswith("run-") and name not in active]:
            del now.versions[name]


def _demanded(now: _Aggregate, commit: Json) -> str:
    kind = str(commit["stream"]).split("-")[0]
    born = facts_of(commit)[0][0] == "ThreadCreated"
    lived = any(name.split("-")[0] in ("thread", "meta", "run") for name in now.versions)
    if kind in ("thread", "meta", "run") and lived and not now.there and not born:
        return "gone"
    demands = commit["demands"]
    for name, demand in demands.items() if isinstance(demands, dict) else ():
        version = now.versions.get(str(name))
        own = ("run-",) if commit.get("rules") == 1 else ("run-", "meta-")
        if demand == "absent" and (version is not None if str(name).startswith(own) else now.there):
            return "exists"
        if demand == "exists" and not now.there:
            return "gone"
        if isinstance(demand, int) and version != demand:
            return "version_conflict"
    return ""


def _fenced(now: _Aggregate, commit: Json) -> str:
    stream, epoch = str(commit["stream"]), commit.get("epoch")
    if epoch is None:
        return "unfenced" if stream.startswith("run-") else ""
    if stream.startswith("run-"):
        names = {stream.removeprefix("run-")}
    else:
        told = [(kind, data.get("run_id")) for kind, data in facts_of(commit)]
        names = {name for kind, name in told if isinstance(name, str) and kind != "RunCreated"}
    current = [name in now.runs and now.runs[name].epoch == epoch for name in names]
    return "" if current and all(current) else "stale_epoch"


def _take(now: _Aggregate, commit: Json, kind: str, data: Json, version: int) -> str:
    """Return why the fact may not happen, or "" after it did."""
    run_id = str(data.get("run_id"))
    run = now.runs.get(run_id)
    if kind == "RunCreated":
        if run is not None:
            return "run_exists"
        now.runs[run_id] = _Run()
    elif kind == "ThreadDeleted":
        now.runs.clear()
    elif kind == "StateUpdated":
        return "view_locked" if _claimed(now) else ""
    elif kind in ("RunClaimed", "RunReleased", "RunCancelRequested", "RunFinished", "RunDeleted"):
        return _run_fact(now, commit, kind, data, run_id, run, version)
    return ""


def _run_fact(now: _Aggregate, commit: Json, kind: str, data: Json, run_id: str, run: _Run | None, version: int) -> str:
    if run is None:
        if kind != "RunDeleted":
            return "no_such_run"
        return "view_locked" if data["view"] and _claimed(now) else ""
    if kind == "RunClaimed":
        return _claim(now, data, run, version)
    if kind == "RunCancelRequested":
        run.stopping = True
        return ""
    if commit.get("epoch") is None and not isinstance(_own_demand(commit), int):
        created = any(k == "RunCreated" and d.get("run_id") == run_id for k, d in facts_of(commit))
        if not created:
            return "unfenced"
    if kind == "RunReleased":
        if run.epoch != data["epoch"]:
            return "stale_epoch"
        run.epoch = None
        return ""
    claimed = _claimed(now)
    if data["view"] and claimed and not (claimed == run_id and commit.get("epoch") is not None):
        return "view_locked"
    del now.runs[run_id]
    return ""


def _claim(now: _Aggregate, data: Json, run: _Run, version: int) -> str:
    if run.epoch is not None:
        return "not_pending"
    if run.stopping:
        return "cancel_requested"
    if data["attempt"] != run.attempts + 1:
        return "wrong_attempt"
    if _claimed(now):
        return "thread_claimed"
    run.attempts, run.epoch = run.attempts + 1, version
    return ""


def _own_demand(commit: Json) -> Value:
    demands = commit["demands"]
    return demands.get(str(commit["stream"])) if isinstance(demands, dict) else None


def _claimed(now: _Aggregate) -> str:
    return next((name for name, run in now.runs.items() if run.epoch is not None), "")
