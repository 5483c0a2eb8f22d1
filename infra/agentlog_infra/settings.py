"""All settings of agentlog: names, defaults and meanings; read once from the environment, then frozen.

Official names of the LangGraph server come first, so that a deployment written for it works unchanged; ours begin with
AGENTLOG_. A name with _FILE appended names a file that holds the value (mounted secrets). A setting that neither a flag
nor the environment gives comes from the `env` of langgraph.json. Longer than a page because it is one table.
"""

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, TypeGuard

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from agentlog_facts.errors import Misconfigured
from agentlog_infra.project_env import APPLICATION, project_environment

MEBIBYTE = 1024 * 1024
_URI_PASSWORD = re.compile(r"(://[^/@:]*:)[^?]*(@)")  # up to the last @: a password may hold one
_GIVEN_AS = {"database_uri": "AGENTLOG_DATABASE_URI", "redis_uri": "AGENTLOG_REDIS_URI"}
"""Names under which a child process gets addresses, so that user code does not take them for its own."""
_QUERY_PASSWORD = re.compile(r"([?&](?:password|sslpassword|ssl_password)=)[^&]*")


class _Chosen:
    """A default that depends on whether the log is Kafka or the embedded broker."""

    def __init__(self, production: int, embedded: int) -> None:
        self.production, self.embedded = production, embedded

    def __call__(self, data: dict[str, object]) -> int:
        return self.production if data.get("kafka_bootstrap") else self.embedded


class Settings(BaseSettings):
    """All settings of one process. Attribute names are ours; each field lists its names in the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True)

    # Locations
    config: Path = Field(
        Path("langgraph.json"),
        validation_alias="AGENTLOG_CONFIG",
        description="the langgraph.json that names the graphs",
    )
    data_dir: Path = Field(
        Path(".agentlog"),
        validation_alias="AGENTLOG_DATA_DIR",
        description="folder for the data of the embedded servers",
    )
    host: str = Field("127.0.0.1", validation_alias="AGENTLOG_HOST", description="address the gateway listens on")
    port: int = Field(2024, ge=0, le=65535, validation_alias="AGENTLOG_PORT", description="port the gateway listens on")

    # The log
    kafka_bootstrap: str | None = Field(
        None,
        validation_alias="AGENTLOG_KAFKA_BOOTSTRAP",
        description="Kafka host:port list; unset: the embedded broker",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT",
        validation_alias="AGENTLOG_KAFKA_SECURITY_PROTOCOL",
        description="protocol of the connections to Kafka",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        "PLAIN", validation_alias="AGENTLOG_KAFKA_SASL_MECHANISM", description="SASL mechanism of the login to Kafka"
    )
    kafka_sasl_username: str | None = Field(
        None, validation_alias="AGENTLOG_KAFKA_SASL_USERNAME", description="user name for Kafka"
    )
    kafka_sasl_password: SecretStr | None = Field(
        None, validation_alias="AGENTLOG_KAFKA_SASL_PASSWORD", description="password for Kafka"
    )
    kafka_sasl_token_provider: str | None = Field(
        None,
        validation_alias="AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER",
        pattern=r"^[\w.]+:\w+$",
        description="module:function that returns a token for OAUTHBEARER; called for each connection",
    )
    kafka_accept: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="AGENTLOG_KAFKA_ACCEPT",
        description="settings of topics, comma separated, that this Kafka does not show and that are known to be right",
    )
    kafka_ssl_cafile: Path | None = Field(
        None,
        validation_alias="AGENTLOG_KAFKA_SSL_CAFILE",
        description="PEM file of the certificate authorities for Kafka",
    )
    kafka_ssl_certfile: Path | None = Field(
        None, validation_alias="AGENTLOG_KAFKA_SSL_CERTFILE", description="PEM file of the client certificate for Kafka"
    )
    kafka_ssl_keyfile: Path | None = Field(
        None, validation_alias="AGENTLOG_KAFKA_SSL_KEYFILE", description="PEM file of the client certificate's key"
    )
    kafka_ssl_keypassword: SecretStr | None = Field(
        None, validation_alias="AGENTLOG_KAFKA_SSL_KEYPASSWORD", description="password of the key file"
    )
    partitions: int = Field(
        default_factory=_Chosen(64, 8),
        ge=1,
        validation_alias="AGENTLOG_PARTITIONS",
        description="partitions of each topic, fixed at creation (64; embedded 8)",
    )
    replication_factor: int = Field(
        default_factory=_Chosen(3, 1),
        ge=1,
        validation_alias="AGENTLOG_REPLICATION_FACTOR",
        description="copies of every record (3; embedded 1)",
    )
    min_insync_replicas: int = Field(
        default_factory=_Chosen(2, 1),
        ge=1,
        validation_alias="AGENTLOG_MIN_INSYNC_REPLICAS",
        description="copies that must exist before a record is acknowledged (2; embedded 1)",
    )
    outputs_retention_ms: int = Field(
        7 * 24 * 3600 * 1000,
        ge=1,
        validation_alias="AGENTLOG_OUTPUTS_RETENTION_MS",
        description="how long stream frames and the hidden rows of deleted threads are kept",
    )

    embedded_deletion: bool = Field(
        False,
        validation_alias="AGENTLOG_EMBEDDED_DELETION",
        description="let Kafka clients delete topics and records of the embedded log, and change their retention",
    )

    # Rows and queue
    database_uri: str | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("AGENTLOG_DATABASE_URI", "DATABASE_URI", "POSTGRES_URI", "POSTGRES_URI_CUSTOM"),
        description="PostgreSQL; unset: the embedded one",
    )
    postgres_pool_max_size: int = Field(
        20,
        ge=2,
        validation_alias="LANGGRAPH_POSTGRES_POOL_MAX_SIZE",
        description="maximum number of connections of one process",
    )
    projector_cache_bytes: int = Field(
        64 * MEBIBYTE,
        ge=MEBIBYTE,
        validation_alias="AGENTLOG_PROJECTOR_CACHE_BYTES",
        description="bytes that a projector may keep of threads, runs and aggregates it has folded",
    )
    redis_uri: str | None = Field(
        None,
        repr=False,
        validation_alias=AliasChoices("AGENTLOG_REDIS_URI", "REDIS_URI", "REDIS_URI_CUSTOM"),
        description="Redis or Valkey; unset: the embedded Valkey",
    )
    redis_key_prefix: str = Field(
        "{agentlog}:",
        min_length=1,
        validation_alias="REDIS_KEY_PREFIX",
        description="prefix of every key; a cluster needs the braces, which keep all keys in one slot",
    )
    redis_cluster: bool = Field(
        False, validation_alias="REDIS_CLUSTER", description="whether Redis is a cluster of several shards"
    )

    # HTTP
    max_request_body_bytes: int = Field(
        300 * MEBIBYTE,
        ge=1,
        validation_alias="HTTP_MAX_REQUEST_BODY_BYTES",
        description="a larger request body is refused with 413",
    )
    http_head_bytes: int = Field(
        64 * 1024,
        ge=1024,
        validation_alias="AGENTLOG_HTTP_HEAD_BYTES",
        description="a longer request line gets 414, more headers get 431",
    )
    http_head_secs: float = Field(
        15.0,
        gt=0,
        validation_alias="AGENTLOG_HTTP_HEAD_SECS",
        description="how long a connection may take to send the head of a request",
    )
    http_body_secs: float = Field(
        30.0,
        gt=0,
        validation_alias="AGENTLOG_HTTP_BODY_SECS",
        description="how long a body may take, beside one second for each AGENTLOG_HTTP_BODY_BYTES_PER_SEC of it",
    )
    http_body_bytes_per_sec: int = Field(
        1024,
        ge=1,
        validation_alias="AGENTLOG_HTTP_BODY_BYTES_PER_SEC",
        description="a body that arrives more slowly gets 408",
    )
    http_keep_alive_secs: int = Field(
        75,
        ge=1,
        validation_alias="AGENTLOG_HTTP_KEEP_ALIVE_SECS",
        description="how long a connection stays open between two requests: longer than clients and proxies keep "
        "theirs (5 to 60 s), because a request that arrives at a connection in closing fails",
    )
    http_limit_concurrency: int | None = Field(
        None,
        ge=1,
        validation_alias="AGENTLOG_HTTP_LIMIT_CONCURRENCY",
        description="with more connections or requests than this, further requests get 503; unset: no limit",
    )
    gateway_cache_bytes: int = Field(
        64 * MEBIBYTE,
        ge=0,
        validation_alias="AGENTLOG_GATEWAY_CACHE_BYTES",
        description="bytes of states and histories that a gateway may keep until their thread changes",
    )
    metadata_max_bytes: int = Field(
        MEBIBYTE,
        ge=1024,
        le=64 * MEBIBYTE,
        validation_alias="AGENTLOG_METADATA_MAX_BYTES",
        description="metadata of more bytes (as JSON) is refused with 422",
    )
    metadata_max_values: int = Field(
        10_000,
        ge=16,
        le=1_000_000,
        validation_alias="AGENTLOG_METADATA_MAX_VALUES",
        description="metadata with more values, at all levels together, is refused with 422",
    )
    cors_allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        ("*",), validation_alias="CORS_ALLOW_ORIGINS", description="origins a browser may call from, comma separated"
    )
    request_deadline_secs: float = Field(
        30.0,
        gt=0,
        validation_alias="AGENTLOG_REQUEST_DEADLINE_SECS",
        description="how long a mutation waits for its verdict before it answers 504",
    )

    # Secrets
    aes_key: SecretStr | None = Field(
        None,
        validation_alias="LANGGRAPH_AES_KEY",
        description="key of 16, 24 or 32 bytes that encrypts the secrets of runs, the same for gateways and workers; "
        "unset: a key in `secrets.key` of the data folder",
    )
    secret_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        validation_alias="AGENTLOG_SECRET_KEYS",
        description="more patterns of keys whose values in configurable and context are secret, comma separated, "
        "such as `*_pin`",
    )

    # Runs
    jobs_per_worker: int = Field(
        10, ge=1, validation_alias="N_JOBS_PER_WORKER", description="number of runs that one worker executes at once"
    )
    checkpoint_memory_bytes: int = Field(
        64 * MEBIBYTE,
        ge=0,
        validation_alias="AGENTLOG_CHECKPOINT_MEMORY_BYTES",
        description="bytes of older checkpoints that a worker may keep for its runs, in equal shares for each of its "
        "N_JOBS_PER_WORKER; the newest checkpoint of each run comes on top",
    )
    isolated_loops: bool = Field(
        False,
        validation_alias="BG_JOB_ISOLATED_LOOPS",
        description="give every run its own event loop, not only runs of graphs that block theirs",
    )
    worker_id: str | None = Field(
        None,
        validation_alias="AGENTLOG_WORKER_ID",
        description="name of this worker process in its claims; unset: a new one at each start",
    )
    workers: int = Field(
        1,
        ge=1,
        validation_alias="AGENTLOG_WORKERS",
        description="number of worker processes that `agentlog dev` starts",
    )
    spare_workers: int = Field(
        4,
        ge=0,
        validation_alias="AGENTLOG_SPARE_WORKERS",
        description="number of spare worker processes that `agentlog dev` starts for a while after a worker died; each "
        "executes the runs of dead workers, one at a time",
    )
    suspects_after_secs: float | None = Field(
        None,
        gt=0,
        validation_alias="AGENTLOG_SUSPECTS_AFTER_SECS",
        description="how long a run whose worker died waits for a spare worker; then another worker lets its runs end "
        "and executes it alone; unset: as long as a lease, or 20 times that in `agentlog dev`, which has spare workers",
    )
    pickle_fallback: bool = Field(
        False,
        validation_alias="AGENTLOG_PICKLE_FALLBACK",
        description="store values of a graph's state that LangGraph's serializer cannot take (numpy scalars, data "
        "frames, plain objects) with pickle; reading such a value runs code that the log holds, so all roles need the "
        "setting, and nobody else may write the log",
    )
    run_timeout_secs: float = Field(
        86400.0, gt=0, validation_alias="BG_JOB_TIMEOUT_SECS", description="longest time one run may take"
    )
    run_max_retries: int = Field(
        3,
        ge=0,
        validation_alias="BG_JOB_MAX_RETRIES",
        description="number of lost attempts without progress before a run fails",
    )
    shutdown_grace_secs: float = Field(
        180.0,
        ge=0,
        validation_alias="BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS",
        description="how long a stopping worker lets its runs finish before it gives them back; unset, "
        "`agentlog dev` takes 5 s",
    )
    lease_ttl_secs: float = Field(
        15.0,
        gt=0,
        validation_alias="AGENTLOG_LEASE_TTL_SECS",
        description="lifetime of a worker's lease on a run; a third of it is how often leases are renewed, lost runs "
        "looked for and the queue compared; after twice that time without a commit a run without a lease is lost",
    )
    cancel_grace_secs: float = Field(
        15.0,
        gt=0,
        validation_alias="AGENTLOG_CANCEL_GRACE_SECS",
        description="how long a worker may take to end a cancelled run before the housekeeper ends it",
    )
    stuck_secs: float = Field(
        60.0,
        gt=0,
        validation_alias="AGENTLOG_STUCK_SECS",
        description="how long user code may ignore the stop request before its worker exits, to be started anew",
    )

    # Logging
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias="LOG_LEVEL", description="minimum level of log lines"
    )
    log_json: bool = Field(False, validation_alias="LOG_JSON", description="write log lines as JSON instead of text")

    # Times that follow from the lease
    @property
    def lease_renew_secs(self) -> float:
        """Return the interval at which a worker renews its leases: two renewals may fail before a lease ends."""
        return self.lease_ttl_secs / 3

    @property
    def look_secs(self) -> float:
        """Return the interval at which the reaper looks for lost runs."""
        return self.lease_ttl_secs / 3

    @property
    def reconcile_secs(self) -> float:
        """Return the interval at which the queue is compared with the rows."""
        return self.lease_ttl_secs / 3

    @property
    def lost_after_secs(self) -> float:
        """Return the time after its last commit at which a run without a lease counts as lost."""
        return self.lease_ttl_secs * 2

    @field_validator("aes_key")
    @classmethod
    def _is_aes_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) not in (16, 24, 32):
            raise ValueError("expected a key of 16, 24 or 32 bytes")
        return value

    @field_validator("cors_allow_origins", "kafka_accept", "secret_keys", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flag, environment, mounted file, environment of the project, default."""
        return init_settings, env_settings, MountedFiles(settings_cls), ProjectEnvironment(settings_cls)

    @classmethod
    def load(cls, flags: Mapping[str, object] | None = None) -> Self:
        """Read the environment; flags (by attribute name, None = not given) win. Raises: Misconfigured."""
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise Misconfigured(_messages(error)) from error

    def environment(self) -> dict[str, str]:
        """Return the variables that give a child process the same addresses, folders and topic settings."""
        shared = ("config", "data_dir", "host", "port", "partitions", "replication_factor", "min_insync_replicas")
        more = ("kafka_bootstrap", "database_uri", "redis_uri", "jobs_per_worker", "log_level")
        login = ("kafka_security_protocol", "kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
        names = (*shared, *more, *(login if self.kafka_sasl_password is not None else ()))
        named = {_GIVEN_AS.get(name, names_of(name)[0]): _plain(getattr(self, name)) for name in names}
        texts = {name: str(value.absolute() if isinstance(value, Path) else value) for name, value in named.items()}
        return {name: text for name, text in texts.items() if named[name] is not None}


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class MountedFiles(PydanticBaseSettingsSource):
    """Reads NAME_FILE where NAME itself is not set."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Read the file of the first name that has one. Raises: Misconfigured if it cannot be read."""
        for name in _names(field, field_name):
            path = os.environ.get(f"{name}_FILE")
            if path and not os.environ.get(name):
                try:
                    return Path(path).read_text().strip(), field_name, False
                except (OSError, UnicodeDecodeError) as error:
                    raise Misconfigured(f"{name}_FILE={path}: cannot be read: {error}") from error
        return None, field_name, False

    def __call__(self) -> dict[str, object]:
        """Collect the values of all mounted files."""
        found = {name: self.get_field_value(field, name)[0] for name, field in Settings.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class ProjectEnvironment(PydanticBaseSettingsSource):
    """Reads the `env` of the project's langgraph.json where the environment of the process does not set a name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Return nothing: `__call__` reads the file once for all fields."""
        return None, field_name, False

    def __call__(self) -> dict[str, object]:
        """Collect the values. Raises: Misconfigured if the environment cannot be read."""
        state = self.current_state
        given = state.get("config") or state.get("AGENTLOG_CONFIG") or Settings.model_fields["config"].default
        project = project_environment(Path(str(given)))
        found = {name: _from_project(name, project) for name in Settings.model_fields if project}
        return {name: project[origin] for name, origin in found.items() if origin is not None}


def _from_project(attribute: str, project: Mapping[str, str]) -> str | None:
    """Return the variable of a project's environment that sets an attribute, None if another source or none does."""
    names = _names(Settings.model_fields[attribute], attribute)
    if attribute == "config" or any(os.environ.get(f"{name}{suffix}") for name in names for suffix in ("", "_FILE")):
        return None
    return next((name for name in names if project.get(name) and name not in APPLICATION), None)


def _names(field: FieldInfo, attribute: str) -> tuple[str, ...]:
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(choice for choice in alias.choices if isinstance(choice, str))
    return (alias,) if isinstance(alias, str) else (attribute,)


def names_of(attribute: str) -> tuple[str, ...]:
    """Return the variables that set an attribute, the preferred one first."""
    names = _names(Settings.model_fields[attribute], attribute)
    return tuple(sorted(names, key=lambda name: name in _GIVEN_AS.values()))


def origin_of(attribute: str, flags: Collection[str] = (), project: Mapping[str, str] | None = None) -> str:
    """Return the origin of an attribute's value.

    It is "flag", the variable's name, its _FILE name, "default", or for one of the environment of the project its name
    with the place.
    """
    if attribute in flags:
        return "flag"
    for suffix in ("", "_FILE"):
        for name in _names(Settings.model_fields[attribute], attribute):
            if os.environ.get(f"{name}{suffix}"):
                return f"{name}{suffix}"
    found = _from_project(attribute, project or {})
    return "default" if found is None else f"{found} in env of langgraph.json"


def shown(settings: Settings, attribute: str) -> str:
    """Return a value for printing: secrets masked, also the password inside a URI."""
    value: object = getattr(settings, attribute)
    if _is_tuple(value):
        return ", ".join(map(str, value))
    if attribute in ("database_uri", "redis_uri"):
        return without_password(str(value or ""))
    return "" if value is None else str(value)


def _is_tuple(value: object) -> TypeGuard[tuple[object, ...]]:
    return isinstance(value, tuple)


def without_password(uri: str) -> str:
    """Return an address for printing, its password masked."""
    return _URI_PASSWORD.sub(r"\1***\2", _QUERY_PASSWORD.sub(r"\1***", uri))


def _messages(error: ValidationError) -> str:
    """Describe each wrong setting by its name in the environment, the expected and the found value."""
    lines: list[str] = []
    for problem in error.errors(include_url=False):
        if problem["type"] == "default_factory_not_called":
            continue  # it only repeats that another setting is wrong
        attribute = str(problem["loc"][0]) if problem["loc"] else "settings"
        name = names_of(attribute)[0] if attribute in Settings.model_fields else attribute
        found = "" if "PASSWORD" in name or "URI" in name or "AES_KEY" in name else f", found {problem['input']!r}"
        lines.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}{found}")
    return "\n".join(lines)
