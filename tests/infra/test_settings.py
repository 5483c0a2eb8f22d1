"""Tests of the settings: names, defaults and precedence, which are a contract with deployments."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentlog_facts.errors import Misconfigured
from agentlog_infra.process.child import child_environment
from agentlog_infra.settings import Settings, names_of, origin_of, shown, without_password

DEFAULTS = {
    "AGENTLOG_CONFIG": "langgraph.json",
    "AGENTLOG_DATA_DIR": ".agentlog",
    "AGENTLOG_HOST": "127.0.0.1",
    "AGENTLOG_PORT": "2024",
    "AGENTLOG_KAFKA_BOOTSTRAP": "None",
    "AGENTLOG_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT",
    "AGENTLOG_KAFKA_SASL_MECHANISM": "PLAIN",
    "AGENTLOG_KAFKA_SASL_USERNAME": "None",
    "AGENTLOG_KAFKA_SASL_PASSWORD": "None",
    "AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER": "None",
    "AGENTLOG_KAFKA_ACCEPT": "()",
    "AGENTLOG_KAFKA_SSL_CAFILE": "None",
    "AGENTLOG_KAFKA_SSL_CERTFILE": "None",
    "AGENTLOG_KAFKA_SSL_KEYFILE": "None",
    "AGENTLOG_KAFKA_SSL_KEYPASSWORD": "None",
    "AGENTLOG_PARTITIONS": "8",
    "AGENTLOG_REPLICATION_FACTOR": "1",
    "AGENTLOG_MIN_INSYNC_REPLICAS": "1",
    "AGENTLOG_OUTPUTS_RETENTION_MS": "604800000",
    "DATABASE_URI": "None",
    "LANGGRAPH_POSTGRES_POOL_MAX_SIZE": "20",
    "REDIS_URI": "None",
    "REDIS_KEY_PREFIX": "{agentlog}:",
    "REDIS_CLUSTER": "False",
    "HTTP_MAX_REQUEST_BODY_BYTES": "314572800",
    "CORS_ALLOW_ORIGINS": "('*',)",
    "AGENTLOG_REQUEST_DEADLINE_SECS": "30.0",
    "N_JOBS_PER_WORKER": "10",
    "AGENTLOG_PICKLE_FALLBACK": "False",
    "BG_JOB_TIMEOUT_SECS": "86400.0",
    "BG_JOB_MAX_RETRIES": "3",
    "BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS": "180.0",
    "AGENTLOG_LEASE_TTL_SECS": "15.0",
    "AGENTLOG_CANCEL_GRACE_SECS": "15.0",
    "AGENTLOG_STUCK_SECS": "60.0",
    "LOG_LEVEL": "INFO",
    "LOG_JSON": "False",
}
ATTRIBUTES = {name: attribute for attribute in Settings.model_fields for name in names_of(attribute)}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove every setting of the test run's own environment."""
    for name in ATTRIBUTES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_a_setting_keeps_its_default(name: str, default: str) -> None:
    assert str(getattr(Settings.load(), ATTRIBUTES[name])) == default


@pytest.mark.parametrize("attribute", Settings.model_fields)
def test_every_setting_says_what_it_means_and_has_a_name_that_shouts(attribute: str) -> None:
    assert Settings.model_fields[attribute].description
    assert all(name == name.upper() for name in names_of(attribute))


@pytest.mark.parametrize(
    ("name", "given", "found"),
    [
        ("POSTGRES_URI", "postgresql://h/d", "postgresql://h/d"),
        ("POSTGRES_URI_CUSTOM", "postgresql://h/d", "postgresql://h/d"),
        ("REDIS_URI_CUSTOM", "redis://h:1", "redis://h:1"),
        ("N_JOBS_PER_WORKER", "3", "3"),
        ("LOG_LEVEL", "warning", "WARNING"),
        ("LOG_JSON", "1", "True"),
        ("CORS_ALLOW_ORIGINS", "https://a.example, https://b.example", "('https://a.example', 'https://b.example')"),
    ],
)
def test_the_environment_sets_a_setting(name: str, given: str, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, given)
    assert str(getattr(Settings.load(), ATTRIBUTES[name])) == found


def test_flag_wins_over_environment_wins_over_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounted = tmp_path / "port"
    mounted.write_text("3003\n")
    monkeypatch.setenv("AGENTLOG_PORT_FILE", str(mounted))
    assert (Settings.load().port, origin_of("port")) == (3003, "AGENTLOG_PORT_FILE")
    monkeypatch.setenv("AGENTLOG_PORT", "3002")
    assert (Settings.load().port, origin_of("port")) == (3002, "AGENTLOG_PORT")
    assert (Settings.load({"port": 3001}).port, origin_of("port", ["port"])) == (3001, "flag")
    assert Settings.load({"port": None}).port == 3002, "a flag that was not given is no flag"


def test_a_mounted_secret_is_read_without_its_line_end_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = tmp_path / "password"
    mounted.write_text("hunter2\n")
    monkeypatch.setenv("AGENTLOG_KAFKA_SASL_PASSWORD_FILE", str(mounted))
    settings = Settings.load()
    assert settings.kafka_sasl_password is not None
    assert settings.kafka_sasl_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(settings) + shown(settings, "kafka_sasl_password")


def test_the_password_inside_an_address_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URI", "postgresql://me:hunter2@db/agentlog?password=hunter3")
    monkeypatch.setenv("REDIS_URI", "redis://:hunter4@cache:6379/0")
    settings = Settings.load()
    printed = repr(settings) + shown(settings, "database_uri") + shown(settings, "redis_uri")
    assert "hunter" not in printed
    assert shown(settings, "database_uri") == "postgresql://me:***@db/agentlog?password=***"


@pytest.mark.parametrize(
    ("uri", "printed"),
    [
        ("postgresql://me:a@hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:a/hunter2@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me@db/x?sslmode=verify-full&sslpassword=hunter2", None),
        ("rediss://:hunter2@cache:6379/0?ssl_password=hunter3", "rediss://:***@cache:6379/0?ssl_password=***"),
        ("unix:///run/redis.sock?password=hunter2&db=0", "unix:///run/redis.sock?password=***&db=0"),
    ],
)
def test_no_form_of_an_address_shows_its_password(uri: str, printed: str | None) -> None:
    assert "hunter" not in without_password(uri)
    assert printed in (None, without_password(uri))


def test_a_mounted_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URI_FILE", "/nowhere/uri")
    with pytest.raises(Misconfigured, match="DATABASE_URI_FILE=/nowhere/uri"):
        Settings.load()


def test_a_wrong_value_is_told_with_its_name_and_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOG_PORT", "many")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(Misconfigured) as refused:
        Settings.load()
    lines = str(refused.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("AGENTLOG_PORT: ")
    assert lines[0].endswith("found 'many'")
    assert lines[1].startswith("LOG_LEVEL: ")


def test_a_wrong_key_of_secrets_is_told_by_what_is_expected_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGGRAPH_AES_KEY", "too-short")
    with pytest.raises(Misconfigured) as refused:
        Settings.load()
    assert str(refused.value) == "LANGGRAPH_AES_KEY: expected a key of 16, 24 or 32 bytes"


def test_on_kafka_the_log_has_more_partitions_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOG_KAFKA_BOOTSTRAP", "kafka:9092")
    settings = Settings.load()
    assert (settings.partitions, settings.replication_factor, settings.min_insync_replicas) == (64, 3, 2)


def test_a_child_gets_the_same_places_and_shape_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = Settings.load({"port": 3001, "data_dir": Path("here")}).model_copy(
        update={"kafka_bootstrap": "127.0.0.1:1", "database_uri": "postgresql:///x", "redis_uri": "unix:///s"}
    )
    for name, value in parent.environment().items():
        monkeypatch.setenv(name, value)
    child = Settings.load()
    assert (child.kafka_bootstrap, child.database_uri, child.redis_uri) == (
        "127.0.0.1:1",
        "postgresql:///x",
        "unix:///s",
    )
    assert (child.port, child.partitions, child.data_dir) == (3001, 8, Path("here").absolute())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().port = 1


@pytest.mark.slow
def test_reading_settings_loads_neither_langgraph_nor_kafka() -> None:
    script = "import agentlog_infra.settings, sys; print([n for n in sys.modules if n.split('.')[0] in %r])"
    heavy = ("langgraph", "langchain_core", "aiokafka", "asyncpg", "redis", "fastapi")
    words = [sys.executable, "-c", script % (heavy,)]
    done = subprocess.run(words, capture_output=True, text=True, env=child_environment(os.environ), check=True)
    assert done.stdout.strip() == "[]"


def test_the_times_of_leases_follow_from_their_life(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _lease_times() == (5.0, 5.0, 5.0, 30.0)
    monkeypatch.setenv("AGENTLOG_LEASE_TTL_SECS", "6")
    assert _lease_times() == (2.0, 2.0, 2.0, 12.0)


def _lease_times() -> tuple[float, float, float, float]:
    found = Settings.load()
    return found.lease_renew_secs, found.look_secs, found.reconcile_secs, found.lost_after_secs
