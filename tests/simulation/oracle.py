"""Invariants after a simulated day, by the independent checker over the log, the clients' records and the rows."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.simulation.clients import Notes
from tests.simulation.fake_log import Broker
from tests.simulation.fake_postgres import Postgres, Row
from tests.simulation.roles import SimulationEnv
from tests.system.checker.fold import Judged, judge
from tests.system.checker.invariants import check
from tests.system.checker.records import Record

from agentlog_commands.submit import Submitted

NOT_DONE = ("Unavailable", "Contended", "KeyReused")
"""Faults that guarantee that the request was not and will not be accepted (for one without a key, never repeated)."""
FAULTS = (*NOT_DONE, "OutcomeUnknown")
COMPARED = ("ledger.heads", "ledger.log_index", "read_v1.runs", "read_v1.threads")


def violations(env: SimulationEnv, notes: Notes) -> list[str]:
    """Return all violations; empty if there are none."""
    judged = judge(_records(env.broker))
    accepted: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if one.verdict == "accepted":
            accepted[str(one.record.value["event_id"])].append(one)
    promised = [answer.event_id for answer in notes.answers if isinstance(answer.outcome, Submitted)]
    found = check(judged, promised)
    return [
        *notes.wrong,
        *env.postgres.wrong,
        *found.violations,
        *(f"{request} never got an answer" for request in notes.unanswered),
        *_answers(notes, accepted),
        *_ends(judged),
        *_steps(judged),
        *executions(judged, env.executed),
        *_verdicts(judged, env.postgres),
    ]


def story(broker: Broker) -> str:
    """Return a digest of the facts and verdicts in log order, without ids and times."""
    numbers: dict[str, int] = {}
    told: list[tuple[object, ...]] = []
    for one in judge(_records(broker)):
        for kind, data in one.facts:
            run_id = str(data.get("run_id", ""))
            number = numbers.setdefault(run_id, len(numbers))
            told.append((one.record.partition, one.record.key, kind, number, one.verdict))
    return hashlib.sha256(repr(told).encode()).hexdigest()


def attempts(broker: Broker) -> Counter[str]:
    """Return the number of runs that were claimed more than once."""
    again = sum(times > 1 for times in check(judge(_records(broker))).attempts.values())
    return Counter({"a run began again": again})


def _records(broker: Broker) -> list[Record]:
    return [
        Record(partition, offset, stored.key.decode(), json.loads(stored.value))
        for partition, records in enumerate(broker.records)
        for offset, stored in enumerate(records)
    ]


def _answers(notes: Notes, accepted: dict[str, list[Judged]]) -> list[str]:
    """Check that every answer agrees with the log, and that all answers to one key are equal."""
    wrong: list[str] = []
    first: dict[str, tuple[object, ...]] = {}
    for answer in notes.answers:
        there = accepted.get(answer.event_id, [])
        match answer.outcome:
            case Submitted() as done:
                places = [(one.record.partition, one.record.offset, one.version) for one in there]
                told = (done.place.partition, done.place.offset, done.version)
                if told not in places:
                    wrong.append(f"{answer} says {told}, the log {places}")
                named = answer.request.key or answer.event_id
                if first.setdefault(named, (told, done.facts)) != (told, done.facts):
                    wrong.append(f"{answer} differs from an earlier answer {first[named]}")
            case None if answer.fault not in FAULTS:
                wrong.append(f"{answer}: no client may see that")
            case _ if answer.request.key is None and answer.fault != "OutcomeUnknown" and there:
                wrong.append(f"{answer}, but the log has it at {there[0].record.offset}")
            case _:
                continue
    return wrong


def _ends(judged: Sequence[Judged]) -> list[str]:
    """Check that every created run has one end: its own, or that of its thread."""
    active: dict[str, dict[str, int]] = defaultdict(dict)
    for one in judged:
        if one.verdict != "accepted":
            continue
        runs = active[one.record.key]
        for kind, data in one.facts:
            if kind == "RunCreated":
                runs[str(data["run_id"])] = one.record.offset
            elif kind in ("RunFinished", "RunDeleted"):
                runs.pop(str(data["run_id"]), None)
            elif kind == "ThreadDeleted":
                runs.clear()
    return [f"run {run_id} of {key} is stuck" for key, runs in active.items() for run_id in runs]


def _steps(judged: Sequence[Judged]) -> list[str]:
    """Check that steps of a run are saved once each, in order, and all of them if it succeeded."""
    wrong: list[str] = []
    wanted: dict[str, int] = {}
    saved: dict[str, list[str]] = defaultdict(list)
    for one in judged:
        if one.verdict != "accepted":
            continue
        for kind, data in one.facts:
            run_id = str(data.get("run_id"))
            if kind == "RunCreated":
                kwargs = data["kwargs"]
                assert isinstance(kwargs, dict)
                steps = kwargs["steps"]
                assert isinstance(steps, int)
                wanted[run_id] = steps
            elif kind == "RunFinished" and data["status"] == "timeout":
                wrong.append(f"run {run_id} ran out of time: nobody looked after it for too long")
            elif kind == "CheckpointSaved":
                saved[run_id].append(str(data["checkpoint_id"]))
            elif kind == "RunFinished" and data["status"] == "success" and len(saved[run_id]) != wanted[run_id]:
                wrong.append(f"run {run_id} succeeded with {len(saved[run_id])} of {wanted[run_id]} steps")
    for run_id, steps_saved in saved.items():
        if steps_saved != [f"{run_id}-{number}" for number in range(len(steps_saved))]:
            wrong.append(f"run {run_id} saved {steps_saved}")
    return wrong


def executions(judged: Iterable[Judged], executed: Iterable[tuple[str, int, int]]) -> list[str]:
    """Check I4: a step runs under a claim, once, and never after the accepted checkpoint of an earlier attempt."""
    claims, saved = set[tuple[str, int]](), dict[tuple[str, str], int]()
    for one in judged:
        for kind, data in one.facts if one.verdict == "accepted" else ():
            if kind == "RunClaimed":
                claims.add((str(data["run_id"]), one.version))
            elif kind == "CheckpointSaved" and one.epoch is not None:
                saved[str(data["run_id"]), str(data["checkpoint_id"])] = one.epoch
    wrong: list[str] = []
    for (run_id, epoch, step), times in Counter(executed).items():
        told = f"run {run_id}, epoch {epoch}, step {step}"
        if (run_id, epoch) not in claims:
            wrong.append(f"{told}: ran without an accepted claim")
        if times > 1:
            wrong.append(f"{told}: ran {times} times")
        before = saved.get((run_id, f"{run_id}-{step}"), epoch)
        if before < epoch:
            wrong.append(f"{told}: its checkpoint of epoch {before} had been accepted")
    return wrong


def _verdicts(judged: Sequence[Judged], postgres: Postgres) -> list[str]:
    """Check that the rows have exactly the records of the log, with the verdicts of the independent checker."""
    wrong: list[str] = []
    rows = dict(postgres.tables["ledger.log_index"])
    for one in judged:
        place = (one.record.partition, one.record.offset)
        row = rows.pop(place, None)
        said = None if row is None else told(row)
        if said != one.verdict:
            wrong.append(f"{place}: the rows say {said}, the checker {one.verdict}")
        elif row is not None and one.verdict == "accepted" and row["version"] != one.version:
            wrong.append(f"{place}: the rows say version {row['version']}, the checker {one.version}")
    return [*wrong, *(f"{place} is in the rows and not on the log" for place in rows)]


def told(row: Row) -> str:
    """Return the verdict of a row, with the reason if it is void."""
    if row["verdict"] != "void":
        return str(row["verdict"])
    return str(json.loads(str(row["detail"]))["reason"])


def differences(folded: Postgres, anew: Postgres) -> list[str]:
    """Return the differences between the rows and a new fold of the same log."""
    wrong: list[str] = []
    for name in COMPARED:
        old, new = folded.tables[name], anew.tables[name]
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                wrong.append(f"{name} {key}: {old.get(key)}, folded anew: {new.get(key)}")
    return wrong
