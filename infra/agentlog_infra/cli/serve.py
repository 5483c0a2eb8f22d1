"""`agentlog serve`: one role in the foreground, or the three embedded servers alone."""

import asyncio
import os
import sys
from pathlib import Path

import rich_click as click

from agentlog_infra import logs
from agentlog_infra.console import Status
from agentlog_infra.settings import Settings
from agentlog_infra.stack.addresses import joined, url_of
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.stack_file import join_roles

PROCESSOR_ROLES = ("projector", "worker", "spare", "housekeeper")
ROLES = ("gateway", *PROCESSOR_ROLES, "stack")


class RoleName(click.ParamType):
    """A role, or several processor roles joined by commas (one process runs them)."""

    name = "role"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name."""
        parts = value.split(",")
        if value not in ROLES and not (len(parts) > 1 and all(part in PROCESSOR_ROLES for part in parts)):
            self.fail(f"{value!r} is no role; there are {', '.join(ROLES)}, and e.g. projector,housekeeper", param, ctx)
        return value


@click.command()
@click.argument("role", type=RoleName())
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to run or join.")
@click.option("--config", type=click.Path(path_type=Path), help="The langgraph.json that names the graphs.")
@click.option("--host", help="Address the gateway listens on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port the gateway listens on.")
@click.option("--n-jobs-per-worker", type=click.IntRange(1), help="Number of runs that a worker executes at once.")
def serve(
    role: str,
    data_dir: Path | None,
    config: Path | None,
    host: str | None,
    port: int | None,
    n_jobs_per_worker: int | None,
) -> int:
    """Run ROLE: gateway, projector, worker, spare, housekeeper (several joined by commas), or stack.

    `spare` is a worker that executes only the runs of workers that died, one at a time.
    `stack` runs the embedded log, PostgreSQL and Valkey. A role finds their addresses in the data directory's
    stack.json; AGENTLOG_KAFKA_BOOTSTRAP, DATABASE_URI and REDIS_URI take precedence.
    """
    flags = {"config": config, "host": host, "port": port, "data_dir": data_dir, "jobs_per_worker": n_jobs_per_worker}
    settings = Settings.load(flags)
    logs.configure(settings.log_level, as_json=settings.log_json)
    if role == "stack":
        return _serve_stack(settings)
    module = "agentlog_gateway" if role == "gateway" else "agentlog_processors"
    words = [] if role == "gateway" else [role]
    os.environ.update(joined(settings).environment())
    join_roles(DataDir.at(settings.data_dir), role, os.getpid(), url_of(settings) if role == "gateway" else None)
    os.execv(sys.executable, [sys.executable, "-m", module, *words])


def _serve_stack(settings: Settings) -> int:
    from agentlog_infra.stack.stack import External, run_stack

    asyncio.run(run_stack(settings.data_dir, External.of(settings), deletable=settings.embedded_deletion))
    return Status.OK
