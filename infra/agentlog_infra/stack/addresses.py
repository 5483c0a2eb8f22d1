"""Addresses of log, PostgreSQL and Redis: from the settings, else from the stack of the data directory."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agentlog_facts.errors import Unavailable
from agentlog_infra.process.child import ProcessIdentity
from agentlog_infra.settings import Settings
from agentlog_infra.stack.data_dir import DataDir
from agentlog_infra.stack.stack_file import JoinedRole, is_own, living_roles


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses of the three servers: Kafka bootstrap servers, a PostgreSQL URI, a Redis URI."""

    kafka: str
    postgres: str
    redis: str


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
        f"no stack runs on {place.root}: start one with `agentlog serve stack --data-dir {place.root}`, "
        "or set AGENTLOG_KAFKA_BOOTSTRAP, DATABASE_URI and REDIS_URI"
    )


def at(settings: Settings, addresses: Addresses) -> Settings:
    """Return the settings with these addresses; settings that depend on the kind of log (partitions, copies) stay."""
    found = asdict(addresses)
    names = {"kafka": "kafka_bootstrap", "postgres": "database_uri", "redis": "redis_uri"}
    return settings.model_copy(update={names[part]: address for part, address in found.items()})


def joined(settings: Settings) -> Settings:
    """Fill the addresses that are not set from the running stack of the data directory. Raises: Unavailable."""
    given = (settings.kafka_bootstrap, settings.database_uri, settings.redis_uri)
    if all(given):
        return settings
    found = join(settings.data_dir)
    return at(settings, Addresses(given[0] or found.kafka, given[1] or found.postgres, given[2] or found.redis))


def url_of(settings: Settings) -> str:
    """Return the gateway's URL as a client on this machine uses it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{settings.port}"
