"""Command line of the server: `python -m agentlog_broker --data DIR`."""

import argparse
import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path

from .errors import BrokerError, Misconfigured
from .logs import to_stderr
from .server import Server
from .settings import BrokerSettings
from .verify import verify

_PR_SET_PDEATHSIG = 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentlog_broker", description="A single-node Kafka-protocol server."
    )
    defaults = BrokerSettings(Path())
    parser.add_argument("--data", type=Path, required=True, help="data directory; created if missing")
    parser.add_argument("--ready-fd", type=int, default=1, help="file descriptor for the ready line (default: stdout)")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent process ends (Linux)")
    parser.add_argument("--log-level", default="WARNING", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    parser.add_argument("--auto-create-topics", action="store_true", help="create a topic when a client asks for it")
    parser.add_argument(
        "--verify", action="store_true", help="check every stored byte and exit; status 1 if one is damaged"
    )
    parser.add_argument("--secret-file", type=Path, help="file with the password that clients log in with")
    parser.add_argument(
        "--undeletable-topics", type=_names, default=frozenset(), help="topics, joined by commas, that stay whole"
    )
    parser.add_argument(
        "--endless-topics", type=_names, default=frozenset(), help="topics, joined by commas, that stay whole for ever"
    )
    for name in ("host", "port", "partitions_default", "max_message_bytes", "max_request_bytes", "max_connections",
                 "wal_file_bytes", "wal_max_age_s", "segment_bytes", "retention_ms", "retention_check_s",
                 "storage_retry_s", "group_initial_delay_s"):  # fmt: skip
        default: str | int | float = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default: {default}"
        )
    return parser


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))


def _settings(arguments: argparse.Namespace) -> BrokerSettings:
    given = vars(arguments)
    names = BrokerSettings.__dataclass_fields__
    return BrokerSettings(given["data"], **{name: value for name, value in given.items() if name in names})


def _die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends. Raises: Misconfigured off Linux."""
    parent = os.getppid()
    if sys.platform != "linux":
        raise Misconfigured("--die-with-parent needs Linux")
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) != 0:
        raise Misconfigured("--die-with-parent: prctl failed")
    if os.getppid() != parent:  # the parent ended before prctl
        sys.exit(1)


async def _serve(settings: BrokerSettings, ready_fd: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = Server(settings)
    port = await server.start()
    line = json.dumps({"host": settings.host, "port": port, "pid": os.getpid()})
    os.write(ready_fd, line.encode() + b"\n")
    if ready_fd > 2:
        os.close(ready_fd)
    stopping, failing = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(server.failed())
    await asyncio.wait((stopping, failing), return_when=asyncio.FIRST_COMPLETED)
    if failing.done():
        raise BrokerError("the background task of the storage failed: see the log")
    failing.cancel()
    await server.stop()


def main() -> int:
    """Run the server until SIGTERM or SIGINT; return 1 if it cannot start or fails."""
    arguments = _parser().parse_args()
    to_stderr(arguments.log_level)
    gc.set_threshold(20_000, 20, 20)  # requests leave no cycles, so frequent collections only cost CPU
    sys.setswitchinterval(0.001)  # the threads share the GIL; a response should not wait 5 ms for it
    try:
        if arguments.die_with_parent:
            _die_with_parent()
        settings = _settings(arguments)
        if arguments.verify:
            print(json.dumps(verify(settings)))
            return 0
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(settings, arguments.ready_fd))
    except (BrokerError, OSError) as error:
        print(f"agentlog_broker: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop


if __name__ == "__main__":
    sys.exit(main())
