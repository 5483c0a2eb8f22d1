"""Preparation before roles start: the topics of the log and the schema of the database."""

import asyncio
import logging
from importlib import import_module

from agentlog_infra.process.processors_jobs import upgrade_schema
from agentlog_infra.settings import Settings

log = logging.getLogger(__name__)


def load_adapters() -> None:
    """Import the modules that `prepare` needs; slow, so it runs on a thread while the servers start."""
    import_module("agentlog_infra.kafka.topics")


async def prepare(settings: Settings) -> None:
    """Create missing topics and migrate the schema, concurrently. Raises: Unavailable, Misconfigured."""
    for outcome in await asyncio.gather(_topics(settings), upgrade_schema(settings), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _topics(settings: Settings) -> None:
    from agentlog_infra.kafka.topics import apply

    for change in await apply(settings):
        log.info("topics.changed", extra={"topic": change.topic, "setting": change.setting, "needed": change.needed})
