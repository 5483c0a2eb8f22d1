"""Addresses of log, PostgreSQL and Redis: from the settings, else from the stack of the data directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from agentlog_facts.errors import Misconfigured, Unavailable
from agentlog_infra.process.child import ProcessIdentity
from agentlog_infra.settings import Settings
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.stack_file import JoinedRole, is_own, living_roles


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of the three servers: Kafka bootstrap servers, a PostgreSQL URI, a Redis URI.

    `kafka_secret_file` holds the password of the embedded log; None for another one.
    """

    kafka: str
    postgres: str
    redis: str
    kafka_secret_file: str | None = None


@dataclass(frozen=True, slots=True)
class RunningServers:
    """The running servers of a data directory, the URL of its gateway if there is one, and the roles that joined."""

    addresses: Addresses
    url: str | None
    roles: Sequence[JoinedRole] = ()


def join(data_dir: str | Path) -> Addresses:
    """Read the addresses of the stack that runs on a data directory.

    Raises: Unavailable if none runs; the file of a killed stack does not count.
    """
    return running_on(data_dir).addresses


def running_on(data_dir: str | Path) -> RunningServers:
    """Read the running servers and roles of a data directory. Raises: Unavailable if none run."""
    place = DataDir.at(data_dir)
    try:
        found = json.loads(place.stack_file.read_text())
        owner = ProcessIdentity(int(found["owner"]["pid"]), str(found["owner"]["started"]))
        addresses = Addresses(**found["addresses"])
        roles, own = living_roles(found), is_own(place, found)
    except FileNotFoundError as error:
        raise _none_runs(place) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"{place.stack_file} cannot be read: {error!r}") from error
    if not own or not owner.alive():
        raise _none_runs(place)
    urls = [found.get("url"), *(one.url for one in roles)]
    return RunningServers(addresses, next((url for url in urls if url), None), roles)


def _none_runs(place: DataDir) -> Unavailable:
    return Unavailable(
        f"no stack runs on {place.root}: start one with `agentlog dev`, or with `agentlog serve stack` and the same "
        "--data-dir, or set AGENTLOG_KAFKA_BOOTSTRAP, DATABASE_URI and REDIS_URI"
    )


def at(settings: Settings, addresses: Addresses) -> Settings:
    """Return the settings with these addresses; settings that depend on the kind of log (partitions, copies) stay."""
    found: dict[str, object] = {
        "kafka_bootstrap": addresses.kafka,
        "database_uri": addresses.postgres,
        "redis_uri": addresses.redis,
    }
    if addresses.kafka_secret_file is not None:
        found |= embedded_login(Path(addresses.kafka_secret_file))
    return settings.model_copy(update=found)


def embedded_login(secret_file: Path) -> dict[str, object]:
    """Return the settings with which a client logs in to the embedded log. Raises: Misconfigured."""
    return {
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": "SCRAM-SHA-256",
        "kafka_sasl_username": "agentlog",
        "kafka_sasl_password": SecretStr(read_password(secret_file)),
    }


def read_password(secret_file: Path) -> str:
    """Return the password of the embedded log. Raises: Misconfigured if the file cannot be read, or is empty."""
    try:
        password = secret_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{secret_file}: the password of the log cannot be read: {error}") from error
    if not password:
        raise Misconfigured(
            f"{secret_file}: expected the password of the log, found nothing; stop the stack, delete the file and "
            "start the stack again, which makes a new one"
        )
    return password


def joined(settings: Settings) -> Settings:
    """Fill the addresses that are not set from the running stack of the data directory.

    Raises: Unavailable if none runs, Misconfigured if the password of its log cannot be read.
    """
    given = (settings.kafka_bootstrap, settings.database_uri, settings.redis_uri)
    if all(given):
        return settings
    found = join(settings.data_dir)
    secret_file = None if given[0] else found.kafka_secret_file
    return at(
        settings,
        Addresses(given[0] or found.kafka, given[1] or found.postgres, given[2] or found.redis, secret_file),
    )


def url_of(settings: Settings) -> str:
    """Return the gateway's URL as a client on this machine uses it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}"
