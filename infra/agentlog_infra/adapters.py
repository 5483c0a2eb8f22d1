"""Connected adapters that gateway, worker and housekeeper share: log, Redis, verdicts, and the submitter over them."""

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agentlog_commands.submit import Submitter
from agentlog_facts.errors import Unavailable
from agentlog_facts.ports import LedgerReads
from agentlog_facts.secret_values import SecretKeys, Secrets
from agentlog_infra.aes_cipher import AesGcmCipher
from agentlog_infra.kafka.event_log import KafkaLog, open_event_log
from agentlog_infra.redis.client import redis_client
from agentlog_infra.redis.commands import demand_usable
from agentlog_infra.redis.feed import RedisFeed
from agentlog_infra.redis.verdicts import HintVerdicts
from agentlog_infra.settings import Settings
from agentlog_infra.subject_salts import SubjectSalts
from agentlog_infra.system_ports import SystemClock, SystemIds
from agentlog_postgres.connection import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapters:
    """Connected adapters of one process."""

    log: KafkaLog
    feed: RedisFeed
    verdicts: HintVerdicts
    submitter: Submitter


async def open_adapters(
    settings: Settings, client_id: str, pool: Pool, ledger: LedgerReads, stack: AsyncExitStack
) -> Adapters:
    """Connect to log and Redis, until `stack` closes; `ledger` reads the verdicts in `pool`.

    Raises: Unavailable, Misconfigured.
    """
    feed = await open_feed(settings, stack)
    verdicts = HintVerdicts(feed, ledger, SystemClock())
    await verdicts.start()
    stack.push_async_callback(verdicts.stop)
    events = await open_event_log(settings, pool, client_id, stack)
    return Adapters(events, feed, verdicts, Submitter(events, verdicts, ledger, SystemClock(), SystemIds()))


def secrets_of(settings: Settings) -> Secrets:
    """Return the secrets of runs, with the key of these settings."""
    return Secrets(SecretKeys(settings.secret_keys), _cipher(settings))


def salts_of(settings: Settings) -> SubjectSalts:
    """Return the salts of subjects, from the key of these settings."""
    return SubjectSalts(_cipher(settings).sealing_key)


def _cipher(settings: Settings) -> AesGcmCipher:
    key = None if settings.aes_key is None else settings.aes_key.get_secret_value()
    return AesGcmCipher(key, settings.data_dir)


async def open_feed(settings: Settings, stack: AsyncExitStack) -> RedisFeed:
    """Return the feed of these settings, which closes with `stack`; a Redis that is away may come later.

    Raises: Misconfigured if Redis answers, and these settings do not suit it.
    """
    client = redis_client(settings)
    feed = RedisFeed(client, settings.redis_key_prefix, SystemIds())
    stack.push_async_callback(feed.stop)
    try:
        await demand_usable(client, settings)
    except Unavailable as error:
        log.warning("redis.not_checked", extra={"error": str(error)})
    return feed
