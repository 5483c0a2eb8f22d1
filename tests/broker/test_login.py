"""Login of clients: only those that know the secret of the server are served."""

import asyncio
import base64
import hashlib
import hmac
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError
from tests.broker.servers import serving

from agentlog_broker.settings import BrokerSettings

confluent: Any = import_module("confluent_kafka")
confluent_admin: Any = import_module("confluent_kafka.admin")
SECRET = "correct horse, battery=staple"


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncGenerator[str]:
    """Yield the address of a server that demands a login, and has the topic `t`."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    async with serving(BrokerSettings(tmp_path / "data", secret_file=tmp_path / "secret")) as (_, address):
        admin = AIOKafkaAdminClient(
            bootstrap_servers=address,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="SCRAM-SHA-256",
            sasl_plain_username="agentlog",
            sasl_plain_password=SECRET,
        )
        await admin.start()
        await admin.create_topics([NewTopic("t", 1, 1)])
        await admin.close()
        yield address


@asynccontextmanager
async def client(address: str, user: str, password: str, mechanism: str = "SCRAM-SHA-256") -> AsyncGenerator[None]:
    made = AIOKafkaProducer(
        bootstrap_servers=address,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username=user,
        sasl_plain_password=password,
        enable_idempotence=True,
    )
    try:
        await made.start()
        await made.send_and_wait("t", b"record")
        yield
    finally:
        await made.stop()


async def test_a_client_that_knows_the_secret_is_served(kafka: str) -> None:
    async with client(kafka, "agentlog", SECRET):
        pass


@pytest.mark.parametrize(
    ("user", "password", "mechanism"),
    [("agentlog", "wrong", "SCRAM-SHA-256"), ("root", SECRET, "SCRAM-SHA-256"), ("agentlog", SECRET, "PLAIN")],
)
async def test_a_client_that_does_not_is_refused(kafka: str, user: str, password: str, mechanism: str) -> None:
    with pytest.raises(KafkaConnectionError, match="Unable to bootstrap"):
        async with client(kafka, user, password, mechanism):
            pytest.fail("the client was served")  # the topic exists, so nothing else refuses it


@pytest.mark.parametrize("password", [SECRET, "wrong"])
async def test_librdkafka_logs_in_with_the_same_mechanism(kafka: str, password: str) -> None:
    admin = confluent_admin.AdminClient(
        {
            "bootstrap.servers": kafka,
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": "agentlog",
            "sasl.password": password,
            "log_level": 0,
        }
    )

    def topics() -> bool:
        try:
            return bool(admin.list_topics(timeout=3).brokers)
        except confluent.KafkaException:
            return False

    assert await asyncio.to_thread(topics) == (password == SECRET)


FIRST = b"n,,n=agentlog,r=abc"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [b""],
        [b"\xff"],
        [b"n,,n=agentlog"],
        [b"n,,n=agentlog,r="],
        [FIRST],
        [FIRST, b""],
        [FIRST, b"c=biws,r=abc,p="],
        [FIRST, b"c=biws,r=abc,p=" + b"A" * 44],
        [FIRST, FIRST],
        [FIRST, b"p=AAAA"],
    ],
)
async def test_nothing_is_answered_before_the_login_is_complete(kafka: str, messages: list[bytes]) -> None:
    host, port = kafka.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    mechanism = b"SCRAM-SHA-256"
    await request(reader, writer, 17, 1, struct.pack(">h", len(mechanism)) + mechanism)
    for message in messages:
        await request(reader, writer, 36, 1, struct.pack(">i", len(message)) + message)
    assert await request(reader, writer, 3, 1, struct.pack(">i", -1)) == b""
    writer.close()


@pytest.mark.parametrize("password", [SECRET, "wrong"])
async def test_the_server_checks_the_proof_itself(kafka: str, password: str) -> None:
    """A client with a wrong password refuses the server first; so no test with a client saw that the server checks."""
    host, port = kafka.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await request(reader, writer, 17, 1, struct.pack(">h", 13) + b"SCRAM-SHA-256")
    code, challenge = await authenticate(reader, writer, FIRST)
    assert code == 0
    fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
    final = f"c=biws,r={fields['r']}"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    signed = f"n=agentlog,r=abc,{challenge.decode()},{final}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = base64.b64encode(bytes(one ^ other for one, other in zip(key, signature, strict=True)))
    code, _ = await authenticate(reader, writer, final.encode() + b",p=" + proof)
    assert code == (0 if password == SECRET else 58)
    served = await request(reader, writer, 3, 1, struct.pack(">i", -1)) != b""
    assert served == (password == SECRET)
    writer.close()


async def authenticate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> tuple[int, bytes]:
    """Send a message of the login; return error code and message of the response. Source: Kafka protocol, key 36."""
    answer = await request(reader, writer, 36, 1, struct.pack(">i", len(message)) + message)
    code, length = struct.unpack_from(">hh", answer, 4)
    at = 8 + max(length, 0)
    (size,) = struct.unpack_from(">i", answer, at)
    return code, answer[at + 4 : at + 4 + size]


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, api_key: int, version: int, body: bytes
) -> bytes:
    """Send a request; return its response, nothing if the server closes the connection."""
    head = struct.pack(">hhih", api_key, version, 7, -1)
    writer.write(struct.pack(">i", len(head) + len(body)) + head + body)
    async with asyncio.timeout(10):
        try:
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            return await reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
