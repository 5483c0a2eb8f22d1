"""Time to live of threads, as `checkpointer.ttl` of `langgraph.json` states it.

Source: docs/http-api.md, section 5.5.
"""

from dataclasses import dataclass
from datetime import timedelta

from agentlog_facts.errors import Misconfigured
from agentlog_facts.json_value import Json, JsonObject
from agentlog_infra.langgraph.loading.config import GraphsConfig

MOST_MINUTES = 60 * 24 * 366 * 100
STRATEGIES = ("delete", "keep_latest")
KEYS = frozenset({"strategy", "default_ttl", "sweep_interval_minutes", "sweep_limit"})


@dataclass(frozen=True, slots=True)
class ThreadTtl:
    """TTL of new threads, as facts hold it (None: they never expire), and the sweeps of expired threads."""

    default: JsonObject | None = None
    sweep_interval: timedelta = timedelta(minutes=5)
    sweep_limit: int = 1_000


def thread_ttl(config: GraphsConfig) -> ThreadTtl:
    """Return what a `langgraph.json` says about the TTL of threads. Raises: Misconfigured."""
    checkpointer = config.document.get("checkpointer")
    stated = checkpointer.get("ttl") if isinstance(checkpointer, dict) else None
    if stated is None:
        return ThreadTtl()
    if not isinstance(stated, dict):
        raise Misconfigured(f"{config.path}: checkpointer.ttl: expected an object, found {stated!r}")
    if unknown := sorted(stated.keys() - KEYS):
        raise Misconfigured(f"{config.path}: checkpointer.ttl: unknown key {', '.join(unknown)}")
    strategy = stated.get("strategy") or "delete"
    if strategy not in STRATEGIES:
        expected = " or ".join(STRATEGIES)
        raise Misconfigured(f"{config.path}: checkpointer.ttl.strategy: expected {expected}, found {strategy!r}")
    minutes = _minutes(config, "default_ttl", stated.get("default_ttl"))
    interval = _minutes(config, "sweep_interval_minutes", stated.get("sweep_interval_minutes"))
    defaults = ThreadTtl()
    return ThreadTtl(
        None if minutes is None else {"strategy": strategy, "ttl_minutes": minutes},
        defaults.sweep_interval if interval is None else timedelta(minutes=interval),
        _limit(config, stated.get("sweep_limit"), defaults.sweep_limit),
    )


def _minutes(config: GraphsConfig, key: str, given: Json) -> int | float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given <= MOST_MINUTES:
        expected = f"expected minutes above 0 and at most {MOST_MINUTES}"
        raise Misconfigured(f"{config.path}: checkpointer.ttl.{key}: {expected}, found {given!r}")
    return given


def _limit(config: GraphsConfig, given: Json, default: int) -> int:
    if given is None:
        return default
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise Misconfigured(f"{config.path}: checkpointer.ttl.sweep_limit: expected a number above 0, found {given!r}")
    return given
