"""Bounded shutdown of Kafka clients: a TLS connection whose close is not answered is broken off.

With uvloop 0.23 the close of a connection with a request in flight gets no answer in one case of three, and uvloop then
waits for its limit of 30 s (uvloop issue 471). Nothing is left to send by then, so the connection is broken off: below
TLS, because `transport.abort` does not end such a wait either.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from aiokafka import AIOKafkaClient, AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import ProducerClosed

from agentlog_infra import timeouts


async def close_client(client: AIOKafkaConsumer | AIOKafkaAdminClient) -> None:
    """Stop a consumer or an admin client; after KAFKA_CLOSE_S its connections are broken off."""
    with _broken_off(client._client):  # pyright: ignore[reportPrivateUsage]  # no public access to connections
        if isinstance(client, AIOKafkaAdminClient):
            await client.close()
        else:
            await _stop(client)


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer. If a failed fetch waits for its retry, aiokafka 0.14 stops half-way and raises CancelledError,
    although the caller was not cancelled; this function does the rest.
    """
    try:
        await consumer.stop()
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        fetches = consumer._fetcher._pending_tasks  # pyright: ignore[reportPrivateUsage]  # no public way to them
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        await consumer._client.close()  # pyright: ignore[reportPrivateUsage]  # as above


async def close_producer(producer: AIOKafkaProducer, patience_s: float) -> None:
    """Stop a producer. After `patience_s` its sender and records are abandoned; their waiters get ProducerClosed.

    Cancelling aiokafka's own `stop` (0.14) would leave the sender running, to deliver whenever its leader comes back.
    """
    stopping = asyncio.ensure_future(producer.stop())
    try:
        await asyncio.wait({stopping}, timeout=patience_s)
    finally:
        if not stopping.done():
            _abandon(producer)
    with _broken_off(producer.client):
        if not (await asyncio.wait({stopping}, timeout=timeouts.KAFKA_CLOSE_S))[0]:
            _abandon(producer)  # its sender still waits for responses in flight: abandon these too
            await asyncio.wait({stopping})
        if stopping.cancelled():  # cancelled together with its sender
            await producer.client.close()
        else:
            stopping.result()


def _abandon(producer: AIOKafkaProducer) -> None:
    sender = producer._sender.sender_task  # pyright: ignore[reportPrivateUsage]  # no public way to it
    if sender is not None:
        sender.cancel()
    holding = producer._message_accumulator  # pyright: ignore[reportPrivateUsage]  # as above
    holding.fail_all(ProducerClosed())


@contextmanager
def _broken_off(client: AIOKafkaClient) -> Generator[None]:
    """Break off the connections of a stopping client after KAFKA_CLOSE_S, or at once if the stop is cancelled."""
    known = client._conns.values()  # pyright: ignore[reportPrivateUsage]  # as above
    writers = [link._writer for link in known]  # pyright: ignore[reportPrivateUsage]  # as above
    links = [writer.transport for writer in writers if writer is not None]
    encrypted = [link for link in links if link.get_extra_info("ssl_object") is not None]
    alarm = asyncio.get_running_loop().call_later(timeouts.KAFKA_CLOSE_S, _break_off, encrypted)
    try:
        yield
    except BaseException:
        _break_off(encrypted)
        raise
    finally:
        alarm.cancel()


def _break_off(links: Sequence[asyncio.WriteTransport]) -> None:
    for link in links:
        found: socket.socket | None = link.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:  # else it is closed
            with socket.socket(fileno=os.dup(found.fileno())) as ours, contextlib.suppress(OSError):  # gone already
                ours.shutdown(socket.SHUT_RDWR)
