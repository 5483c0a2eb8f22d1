"""Diagnosis of a refused connection to Kafka: the setting that is wrong.

The client only reports that it reached no server. So the diagnosis asks each server once more. A refused login, an
untrusted certificate or a TLS alert can only be a wrong setting; a closed connection may be one.
"""

import asyncio
import ssl

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra.kafka.connection import Connection

_PROTOCOL = "AGENTLOG_KAFKA_SECURITY_PROTOCOL"
_TLS_ALERT = 0x15030000
"""First four bytes of a TLS alert, without its minor version; a plain client reads them as a length."""


async def diagnose_connection(connection: Connection) -> None:
    """Ask each server once. Raises: Misconfigured or Unavailable naming the setting; returns if none is wrong."""
    for host, port, _ in collect_hosts(connection["bootstrap_servers"]):
        error = await _error_of(host, port, connection)
        if error is not None:
            where = f"Kafka at {host}:{port}"
            _refused_login(error, where, connection)
            _refused_certificate(error, where, connection)
            _other_protocol(error, where, connection)


async def _error_of(host: str, port: int, connected: Connection) -> BaseException | None:
    try:
        asking = await create_conn(
            host,
            port,
            client_id="agentlog-diagnosis",
            request_timeout_ms=connected["request_timeout_ms"],
            ssl_context=connected["ssl_context"],
            security_protocol=connected["security_protocol"],
            sasl_mechanism=connected["sasl_mechanism"],
            sasl_plain_username=connected["sasl_plain_username"],
            sasl_plain_password=connected["sasl_plain_password"],
            sasl_oauth_token_provider=connected["sasl_oauth_token_provider"],
        )
        try:
            await asking.send(MetadataRequest([]))
        finally:
            asking.close()
    except (KafkaError, OSError, TimeoutError) as error:
        return error
    return None


def _refused_login(error: BaseException, where: str, connection: Connection) -> None:
    if (
        isinstance(error, SaslAuthenticationFailed | AuthenticationFailedError)
        and connection["sasl_oauth_token_provider"]
    ):
        raise Misconfigured(f"AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER: {where} got no valid token: {error}") from error
    if isinstance(error, SaslAuthenticationFailed):
        names = "AGENTLOG_KAFKA_SASL_USERNAME, AGENTLOG_KAFKA_SASL_PASSWORD"
        user, how = connection["sasl_plain_username"], connection["sasl_mechanism"]
        raise Misconfigured(f"{names}: {where} refuses user {user} ({how}): {error}") from error
    if isinstance(error, UnsupportedSaslMechanismError):
        raise Misconfigured(f"AGENTLOG_KAFKA_SASL_MECHANISM: {where}: {error}") from error
    if isinstance(error, IllegalSaslStateError):
        raise Misconfigured(f"{_PROTOCOL}: {where} supports no login on this port, {_found(connection)}") from error


def _refused_certificate(error: BaseException, where: str, connection: Connection) -> None:
    if isinstance(error, ssl.SSLCertVerificationError):
        is_name = "match" in error.verify_message
        name = "AGENTLOG_KAFKA_BOOTSTRAP" if is_name else "AGENTLOG_KAFKA_SSL_CAFILE"
        raise Misconfigured(f"{name}: the certificate of {where} is not trusted: {error.verify_message}") from error
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
        names = "AGENTLOG_KAFKA_SSL_CERTFILE, AGENTLOG_KAFKA_SSL_KEYFILE"
        raise Misconfigured(f"{names}: {where} does not accept our client certificate: {cause.reason}") from error
    if isinstance(error, ssl.SSLError):
        raise Misconfigured(
            f"{_PROTOCOL}: {where} aborts the TLS handshake: {error.reason}, {_found(connection)}"
        ) from error


def _other_protocol(error: BaseException, where: str, connection: Connection) -> None:
    cause = error.__cause__
    encrypted = connection["ssl_context"] is not None
    if isinstance(cause, asyncio.IncompleteReadError) and not encrypted and _is_alert(cause.expected):
        raise Misconfigured(f"{_PROTOCOL}: {where} answers in TLS, {_found(connection)}") from error
    if isinstance(error, ConnectionResetError) and encrypted:
        raise Unavailable(f"{_PROTOCOL}: {where} closes the TLS handshake; does it use TLS? {_found(connection)}")
    if isinstance(cause, asyncio.IncompleteReadError):
        problem = "closes the connection at the first request; does it require TLS or a login?"
        raise Unavailable(f"{_PROTOCOL}: {where} {problem} {_found(connection)}") from error


def _is_alert(length: int | None) -> bool:
    return length is not None and length & 0xFFFF0000 == _TLS_ALERT & 0xFFFF0000


def _found(connection: Connection) -> str:
    return f"found {connection['security_protocol']}"
