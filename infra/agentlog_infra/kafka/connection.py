"""Connection of every Kafka client of agentlog, the names of the topics, and the translation of faults."""

import asyncio
import importlib
import inspect
import ssl
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError, KafkaError

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra import timeouts
from agentlog_infra.settings import Settings, names_of

_PROVIDER = "AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER"


class Connection(TypedDict):
    """Keyword arguments that producers, consumers and admin clients of aiokafka share."""

    bootstrap_servers: str
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None
    sasl_oauth_token_provider: AbstractTokenProvider | None
    request_timeout_ms: int


def connection(settings: Settings) -> Connection:
    """Return the connection of these settings.

    Raises: Unavailable if no log is named; Misconfigured if settings contradict each other or a file is not valid.
    """
    if settings.kafka_bootstrap is None:
        raise Unavailable("AGENTLOG_KAFKA_BOOTSTRAP: expected host:port of the log, found nothing")
    _demand_consistent(settings)
    password = settings.kafka_sasl_password
    return Connection(
        bootstrap_servers=settings.kafka_bootstrap,
        security_protocol=settings.kafka_security_protocol,
        ssl_context=_ssl_context(settings) if _is_tls(settings) else None,
        sasl_mechanism=settings.kafka_sasl_mechanism,
        sasl_plain_username=settings.kafka_sasl_username,
        sasl_plain_password=None if password is None else password.get_secret_value(),
        sasl_oauth_token_provider=_token_provider(settings),
        request_timeout_ms=timeouts.KAFKA_REQUEST_MS,
    )


def _is_tls(settings: Settings) -> bool:
    return settings.kafka_security_protocol in ("SSL", "SASL_SSL")


def _demand_consistent(settings: Settings) -> None:
    """Refuse a login or certificate that is missing, and one that would not be used."""
    protocol = settings.kafka_security_protocol
    login, tls = protocol.startswith("SASL"), _is_tls(settings)
    by_token = login and settings.kafka_sasl_mechanism == "OAUTHBEARER"
    how = f"AGENTLOG_KAFKA_SECURITY_PROTOCOL={protocol}"
    if login:
        how += f" and AGENTLOG_KAFKA_SASL_MECHANISM={settings.kafka_sasl_mechanism}"
    needed = {
        "kafka_sasl_username": login and not by_token,
        "kafka_sasl_password": login and not by_token,
        "kafka_sasl_token_provider": by_token,
    }
    for attribute, is_needed in needed.items():
        if is_needed == (getattr(settings, attribute) is None):
            problem = "expected a value, found nothing" if is_needed else "has no effect"
            raise Misconfigured(f"{names_of(attribute)[0]}: {problem} with {how}")
    for attribute in ("kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"):
        if not tls and getattr(settings, attribute) is not None:
            name = names_of(attribute)[0]
            raise Misconfigured(f"{name}: has no effect with AGENTLOG_KAFKA_SECURITY_PROTOCOL={protocol}")
    if settings.kafka_ssl_keyfile is not None and settings.kafka_ssl_certfile is None:
        raise Misconfigured("AGENTLOG_KAFKA_SSL_CERTFILE: expected the certificate of the key file, found nothing")


class TokenProvider(AbstractTokenProvider):
    """Tokens of a function of the operator, sync or async; aiokafka asks for one at each connection."""

    def __init__(self, provide: Callable[[], object]) -> None:
        self._provide = provide

    async def token(self) -> str:
        """Return a token; a sync function runs in a thread. Raises: KafkaError if it fails or returns no text."""
        try:
            found = await asyncio.to_thread(self._provide)
            if inspect.isawaitable(found):
                found = await found
        except Exception as error:
            raise AuthenticationFailedError(f"{_PROVIDER} failed: {type(error).__name__} {error}") from error
        if not isinstance(found, str) or not found:
            raise AuthenticationFailedError(f"{_PROVIDER}: expected a token as text, found {type(found).__name__}")
        return found


def _token_provider(settings: Settings) -> TokenProvider | None:
    """Import the function of the setting, also from the working directory. Raises: Misconfigured."""
    if settings.kafka_sasl_token_provider is None:
        return None
    name, _, attribute = settings.kafka_sasl_token_provider.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found: object = getattr(importlib.import_module(name), attribute)
    except Exception as error:
        raise Misconfigured(f"{_PROVIDER}: {name}:{attribute}: {type(error).__name__} {error}") from error
    if not callable(found):
        raise Misconfigured(f"{_PROVIDER}: {name}:{attribute}: expected a function, found {type(found).__name__}")
    return TokenProvider(found)


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    """Return a context that trusts the given authorities, else the system's, and checks the server's name.

    Raises: Misconfigured.
    """
    with _unreadable("AGENTLOG_KAFKA_SSL_CAFILE", settings.kafka_ssl_cafile):
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile)
    if settings.kafka_ssl_certfile is not None:
        password = settings.kafka_ssl_keypassword
        names = "AGENTLOG_KAFKA_SSL_CERTFILE, AGENTLOG_KAFKA_SSL_KEYFILE, AGENTLOG_KAFKA_SSL_KEYPASSWORD"
        with _unreadable(names, settings.kafka_ssl_certfile):
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                # an empty password, because OpenSSL would ask for a missing one at the terminal
                "" if password is None else password.get_secret_value(),
            )
    return context


@contextmanager
def _unreadable(name: str, path: Path | None) -> Generator[None]:
    try:
        yield
    except OSError as error:  # an SSLError is one too
        raise Misconfigured(f"{name}: {path}: {error}") from error


@contextmanager
def kafka_faults(what: str) -> Generator[None]:
    """Translate faults of the Kafka client into Unavailable; `what` names the operation."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"{what}: the log does not answer: {type(error).__name__} {error}") from error
    except RuntimeError as error:  # uvloop raises it for a connection that was lost just before
        if "handler is closed" not in str(error):
            raise
        raise Unavailable(f"{what}: the connection to the log was lost") from error
