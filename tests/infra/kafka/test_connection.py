"""Tests of TLS and logins at Apache Kafka: each combination works, a wrong setting is named, no secret is shown."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import uvloop
from aiokafka.errors import AuthenticationFailedError
from tests.apache_kafka.secured import MECHANISMS, PASSWORD, USER, SecuredKafka
from tests.broker.servers import until
from tests.certificates import Certificates
from tests.infra.kafka.test_topics import ENDS_S, PARTITIONS, serve

from agentlog_facts.errors import AgentlogError, Misconfigured, Unavailable
from agentlog_facts.topics import OUTPUTS
from agentlog_infra.kafka.connection import connection
from agentlog_infra.kafka.producer import DurableProducer
from agentlog_infra.kafka.reader import KafkaReader
from agentlog_infra.kafka.topics import apply, check
from agentlog_infra.process.child import child_environment
from agentlog_infra.settings import Settings, names_of

pytestmark = pytest.mark.needs("java", "mvn")

SOON_S = 8.0
SHAPE: dict[str, object] = {"partitions": PARTITIONS, "replication_factor": 1, "min_insync_replicas": 1}
Given = dict[str, object]


class Door:
    """Settings for one port of the node, to be varied by a test."""

    def __init__(self, kafka: SecuredKafka, certificates: Certificates) -> None:
        self._kafka, self._certificates = kafka, certificates

    def tls(self, door: str = "TLS") -> Given:
        return {
            "kafka_bootstrap": self._kafka.door(door),
            "kafka_security_protocol": "SSL",
            "kafka_ssl_cafile": self._certificates.ca,
        }

    def mutual(self) -> Given:
        return {
            **self.tls("MUTUAL"),
            "kafka_ssl_certfile": self._certificates.client,
            "kafka_ssl_keyfile": self._certificates.client_key,
        }

    def login(self, mechanism: str, protocol: str = "SASL_SSL") -> Given:
        return {
            **(self.tls("LOGIN") if protocol == "SASL_SSL" else {"kafka_bootstrap": self._kafka.door("CLEAR")}),
            "kafka_security_protocol": protocol,
            "kafka_sasl_mechanism": mechanism,
            "kafka_sasl_username": USER,
            "kafka_sasl_password": PASSWORD,
        }

    def open(self) -> Given:
        return {"kafka_bootstrap": self._kafka.bootstrap}


@pytest.fixture
def door(secured_kafka: SecuredKafka, certificates: Certificates) -> Door:
    """Return the settings of the ports."""
    return Door(secured_kafka, certificates)


async def refusal(given: Mapping[str, object]) -> AgentlogError:
    """Return the error of a start with these settings; it must come soon and hold no secret."""
    async with asyncio.timeout(SOON_S):
        with pytest.raises(AgentlogError) as refused:
            await check(Settings.load({**SHAPE, **given}))
    assert PASSWORD not in str(refused.value)
    await until(lambda: not connections(given), "the client has hung up")
    return refused.value


def connections(given: Mapping[str, object]) -> list[object]:
    """Return the open connections of this process to the server: a refused client closes in the background."""
    port = int(str(given["kafka_bootstrap"]).rpartition(":")[2])
    return [one for one in psutil.Process().net_connections() if one.raddr and one.raddr.port == port]


async def used(given: Given) -> None:
    """Create the topics, write a record and read it back, each within a short time."""
    settings = Settings.load({**SHAPE, **given})
    connected = connection(settings)
    writer, reader = DurableProducer(connected, "test"), KafkaReader(connected, OUTPUTS, "test")
    for step in (apply(settings), check(settings), writer.start()):
        async with asyncio.timeout(SOON_S):
            await step
    async with asyncio.timeout(SOON_S):
        place = await writer.send(OUTPUTS, b"k", b"v", 0)
        read = await reader.one(0, place.offset)
        assert read is not None
        assert read.value == b"v"
    for step in (reader.stop(), writer.stop()):
        async with asyncio.timeout(SOON_S):
            await step


@pytest.mark.parametrize("protocol", ["SASL_SSL", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_each_login_lets_us_make_topics_write_and_read(door: Door, mechanism: str, protocol: str) -> None:
    uvloop.run(used(door.login(mechanism, protocol)))  # the loop of every role


def test_tls_with_and_without_a_client_certificate_lets_us_in(door: Door) -> None:
    for given in (door.tls(), door.mutual()):
        uvloop.run(used(given))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("wrong", ["kafka_sasl_username", "kafka_sasl_password"])
async def test_a_wrong_login_is_named(door: Door, mechanism: str, wrong: str) -> None:
    error = await refusal({**door.login(mechanism), wrong: "not-this"})
    assert isinstance(error, Misconfigured)
    assert str(error).startswith("AGENTLOG_KAFKA_SASL_USERNAME, AGENTLOG_KAFKA_SASL_PASSWORD: Kafka at 127.0.0.1:")
    assert f"({mechanism})" in str(error)


@pytest.mark.parametrize("missing", ["kafka_sasl_username", "kafka_sasl_password"])
async def test_a_missing_login_is_named(door: Door, missing: str) -> None:
    error = await refusal({**door.login("PLAIN"), missing: None})
    assert isinstance(error, Misconfigured)
    assert str(error).startswith(f"{names_of(missing)[0]}: expected a value, found nothing")


async def test_an_authority_that_is_missing_or_signed_nothing_here_is_named(
    door: Door, certificates: Certificates
) -> None:
    for authority in (None, certificates.other_ca):
        for given in (door.tls(), door.login("PLAIN")):
            error = await refusal({**given, "kafka_ssl_cafile": authority})
            assert isinstance(error, Misconfigured)
            assert str(error).startswith("AGENTLOG_KAFKA_SSL_CAFILE: the certificate of Kafka at 127.0.0.1:")


async def test_a_server_of_another_name_is_refused(door: Door, secured_kafka: SecuredKafka) -> None:
    error = await refusal({**door.tls(), "kafka_bootstrap": f"localhost:{secured_kafka.doors['TLS']}"})
    assert isinstance(error, Misconfigured)
    assert "AGENTLOG_KAFKA_BOOTSTRAP: the certificate" in str(error)
    assert "localhost" in str(error)


async def test_a_client_certificate_that_is_missing_is_named(door: Door) -> None:
    error = await refusal(door.tls("MUTUAL"))
    assert isinstance(error, Misconfigured)
    assert str(error).startswith("AGENTLOG_KAFKA_SSL_CERTFILE, AGENTLOG_KAFKA_SSL_KEYFILE: ")


@pytest.mark.parametrize("attribute", ["kafka_ssl_cafile", "kafka_ssl_certfile", "kafka_ssl_keyfile"])
async def test_a_file_that_is_missing_or_holds_something_else_is_named(
    door: Door, attribute: str, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    other.write_text("not a certificate")
    for path in (tmp_path / "nowhere.pem", other):
        error = await refusal({**door.mutual(), attribute: path})
        assert isinstance(error, Misconfigured)
        assert names_of(attribute)[0] in str(error)


async def test_the_wrong_protocol_is_named(door: Door, secured_kafka: SecuredKafka) -> None:
    login, clear = door.login("SCRAM-SHA-512"), door.login("SCRAM-SHA-512", "SASL_PLAINTEXT")
    for given in (
        {"kafka_bootstrap": secured_kafka.door("TLS")},
        {"kafka_bootstrap": secured_kafka.door("LOGIN")},
        {"kafka_bootstrap": secured_kafka.door("CLEAR")},
        door.tls("LOGIN"),
        {**door.tls(), **door.open()},
        {**login, "kafka_bootstrap": secured_kafka.door("TLS")},
        {**login, "kafka_bootstrap": secured_kafka.door("CLEAR")},
        {**clear, "kafka_bootstrap": secured_kafka.door("LOGIN")},
        {**clear, **door.open()},
    ):
        error = await refusal(given)
        assert isinstance(error, Misconfigured | Unavailable)
        assert str(error).startswith("AGENTLOG_KAFKA_SECURITY_PROTOCOL: Kafka at 127.0.0.1:"), given
        assert f"found {given.get('kafka_security_protocol', 'PLAINTEXT')}" in str(error)


async def test_nobody_at_the_address_is_no_matter_of_settings(door: Door) -> None:
    error = await refusal({**door.login("PLAIN"), "kafka_bootstrap": "127.0.0.1:1"})
    assert isinstance(error, Unavailable)
    assert "127.0.0.1" in str(error)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_a_setting_that_would_be_ignored_is_refused(door: Door, certificates: Certificates, protocol: str) -> None:
    given: Given = door.open() if protocol == "PLAINTEXT" else door.login("PLAIN", protocol)
    ignored: Given = {"kafka_ssl_cafile": certificates.ca}
    if protocol == "PLAINTEXT":
        ignored |= {"kafka_sasl_password": PASSWORD}
    for attribute, value in ignored.items():
        no_effect = f"{names_of(attribute)[0]}: has no effect with .*={protocol}"
        with pytest.raises(Misconfigured, match=no_effect) as refused:
            connection(Settings.load({**given, attribute: value}))
        assert PASSWORD not in str(refused.value)


def test_no_log_line_of_a_role_holds_the_password(door: Door, tmp_path: Path) -> None:
    given = door.login("PLAIN")
    asyncio.run(apply(Settings.load({**SHAPE, **given})))
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    process = serve(
        "projector",
        str(given["kafka_bootstrap"]),
        tmp_path,
        LOG_LEVEL="DEBUG",
        AGENTLOG_PARTITIONS="7",  # so that it ends after it has logged in
        **environment(given, secret),
    )
    _, output = process.communicate(timeout=ENDS_S)
    assert process.returncode == 2, output
    assert "partitions is 2, needed 7" in output
    assert PASSWORD not in output
    assert " debug " in output


def test_doctor_shows_every_setting_of_the_login_and_no_secret(door: Door, tmp_path: Path) -> None:
    given = door.login("SCRAM-SHA-256")
    asyncio.run(apply(Settings.load({**SHAPE, **given})))
    secret = tmp_path / "password"
    secret.write_text(PASSWORD)
    mine = {"AGENTLOG_KAFKA_BOOTSTRAP": str(given["kafka_bootstrap"]), **environment(given, secret)}
    mine |= {"DATABASE_URI": "postgresql://me:hunter3@127.0.0.1:1/x", "REDIS_URI": "redis://:hunter4@127.0.0.1:1/0"}
    mine |= {"AGENTLOG_PARTITIONS": str(PARTITIONS), "AGENTLOG_REPLICATION_FACTOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "agentlog_infra.cli.main", "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=child_environment({"AGENTLOG_MIN_INSYNC_REPLICAS": "1", **mine}),
        check=False,
    )
    assert "hunter" not in done.stdout + done.stderr
    found = json.loads(done.stdout)
    (log,) = [one for one in found["findings"] if one["name"] == "log"]
    assert log["state"] == "ok"
    settings = {one["name"]: (one["value"], one["origin"]) for one in found["settings"]}
    assert settings["AGENTLOG_KAFKA_SASL_PASSWORD"] == ("**********", "AGENTLOG_KAFKA_SASL_PASSWORD_FILE")
    assert settings["AGENTLOG_KAFKA_SASL_MECHANISM"] == ("SCRAM-SHA-256", "AGENTLOG_KAFKA_SASL_MECHANISM")
    assert settings["AGENTLOG_KAFKA_SSL_CAFILE"][0] == str(given["kafka_ssl_cafile"])


def environment(given: Given, secret: Path) -> dict[str, str]:
    """Return the variables of a login; its password is mounted as a file."""
    named = {names_of(name)[0]: str(value) for name, value in given.items() if name != "kafka_bootstrap"}
    del named["AGENTLOG_KAFKA_SASL_PASSWORD"]
    return {**named, "AGENTLOG_KAFKA_SASL_PASSWORD_FILE": str(secret)}


TOKENS = {"kafka_bootstrap": "k:1", "kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "OAUTHBEARER"}


async def test_a_login_by_token_asks_the_function_of_the_setting_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_tokens.py").write_text(
        "asked = 0\n"
        "def sync():\n    global asked\n    asked += 1\n    return f't{asked}'\n"
        "async def async_():\n    return sync()\n"
        "def nothing(): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    found: list[str] = []
    for name in ("sync", "async_"):
        made = connection(Settings.load({**TOKENS, "kafka_sasl_token_provider": f"own_tokens:{name}"}))
        provider = made["sasl_oauth_token_provider"]
        assert provider is not None
        found += [await provider.token(), await provider.token()]
    assert found == ["t1", "t2", "t3", "t4"]
    empty = connection(Settings.load({**TOKENS, "kafka_sasl_token_provider": "own_tokens:nothing"}))
    assert empty["sasl_oauth_token_provider"] is not None
    with pytest.raises(AuthenticationFailedError, match="AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER: expected a token"):
        await empty["sasl_oauth_token_provider"].token()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({**TOKENS}, "AGENTLOG_KAFKA_SASL_TOKEN_PROVIDER: expected a value"),
        ({**TOKENS, "kafka_sasl_token_provider": "nowhere:f"}, "nowhere:f: ModuleNotFoundError"),
        ({**TOKENS, "kafka_sasl_token_provider": "json:no_such"}, "json:no_such: AttributeError"),
        ({**TOKENS, "kafka_sasl_token_provider": "json:f", "kafka_sasl_username": "u"}, "USERNAME: has no effect"),
        ({"kafka_bootstrap": "k:1", "kafka_sasl_token_provider": "json:loads"}, "TOKEN_PROVIDER: has no effect"),
    ],
)
def test_a_token_provider_that_is_missing_unusable_or_unused_is_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        connection(Settings.load(given))
