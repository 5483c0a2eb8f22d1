"""How every Kafka client of agentlog is connected, and what its faults mean to us."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypedDict

from aiokafka.errors import KafkaError

from agentlog_facts.errors import Unavailable
from agentlog_infra.settings import Settings

EVENTS = "agentlog.events"
OUTPUTS = "agentlog.outputs"
BLOBS = "agentlog.blobs"

REQUEST_TIMEOUT_MS = 5_000
"""How long one request to the broker may take before the client tries again."""


class Connection(TypedDict):
    """Keyword arguments that producers, consumers and admin clients of aiokafka share."""

    bootstrap_servers: str
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    request_timeout_ms: int


def connection(settings: Settings) -> Connection:
    """Return the connection of these settings. Raises: Unavailable when no log is named."""
    if settings.kafka_bootstrap is None:
        raise Unavailable("AGENTLOG_KAFKA_BOOTSTRAP: expected host:port of the log, found nothing")
    password = settings.kafka_sasl_password
    return Connection(
        bootstrap_servers=settings.kafka_bootstrap,
        security_protocol=settings.kafka_security_protocol,
        ssl_context=_ssl_context(settings) if "SSL" in settings.kafka_security_protocol.split("_")[-1:] else None,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_plain_username=settings.kafka_sasl_username,
        sasl_plain_password=None if password is None else password.get_secret_value(),
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    if settings.kafka_ssl_certfile is not None:
        password = settings.kafka_ssl_keypassword
        context.load_cert_chain(
            settings.kafka_ssl_certfile,
            settings.kafka_ssl_keyfile,
            None if password is None else password.get_secret_value(),
        )
    return context


@contextmanager
def kafka_faults(what: str) -> Generator[None]:
    """Turn faults of the Kafka client into Unavailable, naming what was tried."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"{what}: the log does not answer: {type(error).__name__} {error}") from error
