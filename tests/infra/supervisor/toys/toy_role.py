"""Role process for tests of the supervisor: notes its events in a file, and behaves as the test demands."""

import json
import os
import random
import signal
import sys
import uuid
from pathlib import Path

from agentlog_infra.process.exit_status import EXIT_LEFT, EXIT_MISCONFIGURED, EXIT_REPLACE
from agentlog_infra.system_ports import SystemIds

STATUSES = {
    "stuck": EXIT_REPLACE,
    "dies later": 3,
    "leaves": EXIT_LEFT,
    "exits with 0": 0,
    "exits as misconfigured": EXIT_MISCONFIGURED,
}
"""Exit statuses of toys that end right after they have become ready."""


def note(what: str) -> None:
    """Append one line to the file that the test reads."""
    line = {"what": what, "role": sys.argv[1], "pid": os.getpid(), "worker": os.environ.get("AGENTLOG_WORKER_ID", "")}
    with Path(os.environ["TOY_NOTES"]).open("a") as notes:
        notes.write(json.dumps(line) + "\n")


def behaviour() -> str:
    """Return the demanded behaviour; the test may change the file between two starts."""
    file = Path(os.environ["TOY_BEHAVIOUR"])
    wanted: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return wanted.get(sys.argv[1], "steady")


def main() -> int:
    """Start, become ready, wait for SIGTERM."""
    signals = {signal.SIGTERM, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    note("started")
    wanted = behaviour()
    if wanted == "misconfigured":
        print("error: this toy cannot run", file=sys.stderr)
        return 2
    if wanted == "draws":
        note(f"drew {SystemIds().uuid7()[-12:]} {uuid.uuid4()} {random.getrandbits(64)}")
    if wanted == "dies":
        return 1
    fd = int(sys.argv[sys.argv.index("--ready-fd") + 1])
    os.write(fd, json.dumps({"role": sys.argv[1], "pid": os.getpid()}).encode() + b"\n")
    os.close(fd)
    if wanted in STATUSES:
        return STATUSES[wanted]
    while True:
        number = signal.sigwait(signals)
        note("asked to stop")
        if number == signal.SIGTERM and wanted != "stubborn":
            note("stopped")
            return 0


if __name__ == "__main__":
    sys.exit(main())
