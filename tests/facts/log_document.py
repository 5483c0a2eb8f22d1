"""Generator of docs/log.md, the page for other readers of the log: `python -m tests.facts.log_document`."""

# ruff: noqa: E501  (rows of a Markdown table cannot be broken)

import json
from inspect import cleandoc
from pathlib import Path

from tests.facts.examples import AT, EXAMPLES, RUN, THREAD

from agentlog_facts.envelope import Actor, Authorization, Cause, Delegation, Draft, Request
from agentlog_facts.frame import Frame, FrameRecord, encode_record
from agentlog_facts.ids import Key, RunId, stream
from agentlog_facts.json_value import Json, load_object
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.vocabulary import NAMES, SCHEMAS, encode_commit, encode_fact, encode_facts

FILTER = KeyedDigest("d" * 64, "0123456789abcdef.fedcba9876543210")

PAGE = Path(__file__).parents[2] / "docs" / "log.md"

INTRODUCTION = """# The log

Generated from the code by `python -m tests.facts.log_document` and compared with it by a test.
Verifiers and other readers of the log may rely on these shapes for ever: a changed shape gets a new schema number.
The [glossary](glossary.md) defines the terms.

| topic | key | value |
|---|---|---|
| `agentlog.events` | aggregate key (UTF-8): thread id, assistant id, ... | one commit: 1..n facts of one stream, atomically |
| `agentlog.outputs` | thread id | one flush of stream frames; headers `run_id`, `epoch`, `n`, and `end`, `of` or `release` where they apply |
| `agentlog.blobs` | sha256 (hex) of the whole value | one part (at most 900 KiB) of a large JSON value; headers `part`, `parts`, `size` |

- All values are JSON (UTF-8). Partition of a key: `murmur2(key) & 0x7fffffff mod partitions`, as in Java's client.
- A commit on the log is an intent. The guard (`commands/agentlog_facts/guard.py`; its rules: `ARCHITECTURE.md`) decides
  its verdict in log order, from the earlier commits of the same key. Void commits stay as evidence and change nothing.
- `blobs` lists values that were too large for the record: `at` is the path inside `facts` where null stands instead.
- `{"$sealed": {"key_id", "nonce", "ciphertext"}}` stands in place of a secret in `RunCreated`: AES-GCM over the JSON of
  the value, all in base64, with the thread's id as associated data.
- `spec` is the version of the envelope, `rules` that of the guard. By `spec` 1, `on_behalf_of` was a list of names
  (outermost first), `request` had no `client`, and there was no `authz`. By `rules` 1, the demand `absent` on a stream
  `meta-` asked for the thread, by `rules` 2 it asks for that stream.
- A digest of a value that may be personal is `{"digest", "salt_id"}`: HMAC-SHA-256 under the salt that `salt_id` names.
- The first record of every partition of `agentlog.events` is `PartitionOpened`. A position is `base` + offset.
- A flush counts only if its (`epoch`, `n`) is above the last one on its thread. `end` is the event id of the
  `RunFinished` that must be accepted before the flush counts. `of` is the event id of a fact that another process than
  the worker announces. `release` makes the record a fence: it is the event id of a `RunReleased` that is appended after
  the fence. If that fact is accepted, no flush of the epoch after its first fence counts.
"""


def pretty(value: Json) -> str:
    """Return a JSON value as a code block of the page."""
    return "```json\n" + json.dumps(value, indent=2, ensure_ascii=False) + "\n```\n"


def commit_example() -> Json:
    """Return a whole commit."""
    name = stream("thread", THREAD)
    draft = Draft(
        key=Key(THREAD),
        stream=name,
        event_id="019ab000-0000-7000-8000-0000000000e1",
        append_id="019ab000-0000-7000-8000-0000000000a1",
        body_sha256="b" * 64,
        facts=(EXAMPLES[0],),
        occurred_at=AT,
        cause=Cause(
            Actor("service", "portal", "https://login.example", "oidc", ip_hash="1" * 32),
            correlation_id="019ab000-0000-7000-8000-0000000000c1",
            on_behalf_of=(Delegation("ana", "portal", "https://login.example", ("threads:write",), expires_at=AT),),
            request=Request("order-7", "POST", "/threads", "langgraph-sdk-py/0.3.1"),
            authz=Authorization("allow", "auth.py:add_owner", "c" * 64, ("threads:write",), FILTER),
        ),
        demands={name: "absent"},
    )
    return load_object(encode_commit(draft, encode_facts(draft)))


def frames_example() -> Json:
    """Return the value of a flush."""
    frames = (Frame("metadata", {"run_id": RUN, "attempt": 1}), Frame("updates", {"send": {"sent": True}}))
    value, _ = encode_record(FrameRecord(RunId(RUN), 2, 0, frames))
    return load_object(value)


def render() -> str:
    """Return the whole page."""
    parts = [
        INTRODUCTION,
        "## A commit\n",
        pretty(commit_example()),
        "## A flush of frames\n",
        pretty(frames_example()),
    ]
    parts.append("## Facts\n")
    for fact in EXAMPLES:
        name = NAMES[type(fact)]
        parts += [
            f"### {name}, schema {SCHEMAS[name]}\n",
            cleandoc(type(fact).__doc__ or "") + "\n",
            pretty(encode_fact(fact)),
        ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
