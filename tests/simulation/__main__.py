"""Command line of the simulation: `python -m tests.simulation FIRST COUNT`, or `SEED` alone to replay one day.

Run it in the folder above `tests`, with the rooms on PYTHONPATH. It writes one line of JSON per wrong day and one at
the end; for a single seed it writes the whole trace. `--until-wrong` stops at the first wrong day. Exit status 1: a day
was wrong.
"""

import argparse
import gc
import json
import sys
from collections import Counter

from tests.simulation.simulation import Day, simulate


def main() -> int:
    """Simulate the days that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?")
    parser.add_argument("--until-wrong", action="store_true")
    asked = parser.parse_args()
    gc.collect()
    gc.freeze()
    if asked.count is None:
        return _replayed(simulate(asked.first, keep_lines=True))
    return _many(asked.first, asked.count, until_wrong=asked.until_wrong)


def _replayed(day: Day) -> int:
    _say("\n".join(day.lines))
    _say(json.dumps({"seed": day.seed, "digest": day.digest, "violations": day.violations}, indent=1))
    return 1 if day.violations else 0


def _many(first: int, count: int, *, until_wrong: bool) -> int:
    digests, stories = set[str](), set[str]()
    faults, effects, verdicts = Counter[str](), Counter[str](), Counter[str]()
    records = runs = wrong = 0
    for seed in range(first, first + count):
        day = simulate(seed)
        digests.add(day.digest)
        stories.add(day.story)
        faults.update(day.faults)
        effects.update(day.effects)
        verdicts.update(day.verdicts)
        records, runs = records + day.records, runs + day.runs
        if day.violations:
            wrong += 1
            _say(json.dumps({"seed": seed, "digest": day.digest, "violations": day.violations}))
            if until_wrong:
                return 1
    _say(
        json.dumps(
            {
                "days": count,
                "wrong": wrong,
                "digests": sorted(digests),
                "stories": sorted(stories),
                "records": records,
                "runs": runs,
                "verdicts": verdicts,
                "faults": faults,
                "effects": effects,
            }
        )
    )
    return 1 if wrong else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
