"""Storage cost of a conversation: its stored bytes on the log, divided by the bytes of its messages."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from agentlog_facts.topics import BLOBS
from agentlog_infra.kafka.partitions import partition_of
from agentlog_infra.settings import Settings
from bench.client import Client, JsonObject
from bench.log_reads import LogReads, read_log
from bench.works import Round, Work, repeat

QUESTION_WORDS = 60
SHORT, LONG = 150, 500
"""Words of an answer; short answers show the overhead of a turn more."""


def storage(settings: Settings, words: int) -> Work:
    """Return a work: a chat of `count` turns with answers of `words` words, and its bytes on `events` and `blobs`."""

    async def work(client: Client, clients: int, count: int) -> Round:
        thread_id = await client.thread()
        turns = iter(range(count))

        async def operation() -> None:
            await client.run(thread_id, turn(next(turns), words))

        async with read_log(settings) as events, read_log(settings, BLOBS) as blobs:
            partition = partition_of(thread_id.encode(), settings.partitions)
            events_start, blobs_start = (await events.ends())[partition], await blobs.ends()
            done = await repeat(operation, clients, count)
            found = await left(events, thread_id, partition, events_start)
            large_bytes = await grown(blobs, blobs_start)
        raw = await raw_bytes(client, thread_id, 2 * count)
        done.notes |= {
            "stored/raw": (found.stored_bytes + large_bytes) / raw,
            "uncompressed/raw": (found.plain_bytes + large_bytes) / raw,
            "raw KiB": raw / 1024,
            "commits a turn": found.commits / count,
        }
        return done

    return work


@dataclass(frozen=True, slots=True)
class Left:
    """Size of a thread on `events`: its record batches as stored, and its keys and values before compression."""

    commits: int
    stored_bytes: int
    plain_bytes: int


async def left(events: LogReads, thread_id: str, partition: int, start: int) -> Left:
    """Measure a partition from `start` on, where only this thread was written."""
    end = (await events.ends())[partition]
    plain_bytes = 0
    async for record in events.records(partition, start, end):
        key, value = record.key or b"", record.value or b""
        if key != thread_id.encode():
            raise RuntimeError(f"a record of {key!r} came between those of {thread_id}")
        plain_bytes += len(key) + len(value)
    return Left(end - start, await events.stored_bytes(partition, start, end), plain_bytes)


async def grown(blobs: LogReads, starts: Mapping[int, int]) -> int:
    """Return the bytes stored on a topic since its partitions ended at `starts`."""
    ends = await blobs.ends()
    return sum([await blobs.stored_bytes(number, start, ends[number]) for number, start in starts.items()])


def turn(number: int, words: int) -> JsonObject:
    """Return the run of one turn: a question with words of its own, an answer that is no copy of it."""
    chance = random.Random(number)
    asked = ["".join(chance.choices("etaoinshrdlcumwfgypb", k=chance.randint(3, 9))) for _ in range(QUESTION_WORDS)]
    question = f"{' '.join(asked)}, then count to {words}"
    return {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": question}]}}


async def raw_bytes(client: Client, thread_id: str, expected: int) -> int:
    """Return the size of a thread's messages as JSON, each once, as the API shows them."""
    messages = json.loads(await client.call("GET", f"/threads/{thread_id}/state"))["values"]["messages"]
    if len(messages) != expected:
        raise RuntimeError(f"thread {thread_id}: expected {expected} messages, found {len(messages)}")
    return len(json.dumps(messages, ensure_ascii=False, separators=(",", ":")).encode())
