"""I4: user code runs under a claim, and a step whose writes were accepted never begins again in a later attempt."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.system.checker.fold import Judged
from tests.system.checker.invariants import accepted_tasks
from tests.system.checker.notes import Effect


def repeated_effects(judged: Sequence[Judged], effects: Iterable[Effect]) -> list[str]:
    """Return the steps that ran and must not have run. Holds for graphs that pass each step once."""
    claims, done = _claims(judged), accepted_tasks(judged)
    wrong: list[str] = []
    begun: defaultdict[tuple[str, int, str], int] = defaultdict(int)
    for effect in effects:
        epoch = claims.get((effect.run_id, effect.attempt))
        told = f"run {effect.run_id}, attempt {effect.attempt}, step {effect.step}"
        if epoch is None:
            wrong.append(f"{told}: ran without an accepted claim")
            continue
        before = {name for other, names in done[effect.run_id].items() if other < epoch for name in names}
        if effect.step in before:
            wrong.append(f"{told}: an earlier attempt's writes of it had been accepted")
        begun[effect.run_id, effect.attempt, effect.step] += 1
        if begun[effect.run_id, effect.attempt, effect.step] == 2:
            wrong.append(f"{told}: ran twice in one attempt")
    return wrong


def _claims(judged: Iterable[Judged]) -> dict[tuple[str, int], int]:
    """Return (run, attempt) -> epoch of its accepted claim."""
    found: dict[tuple[str, int], int] = {}
    for one in judged:
        if one.verdict == "accepted":
            for kind, data in one.facts:
                attempt = data.get("attempt")
                if kind == "RunClaimed" and isinstance(attempt, int):
                    found[str(data["run_id"]), attempt] = one.version
    return found
