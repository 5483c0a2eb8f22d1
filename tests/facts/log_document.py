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
- A commit on the log is an intent. The guard decides its verdict in log order, from the earlier commits of the same key
  ("Verdicts" below). Void commits stay as evidence and change nothing.
- `blobs` lists values that were too large for the record: `at` is the path inside `facts` where null stands instead.
- `{"$sealed": {"key_id", "nonce", "ciphertext"}}` stands in place of a secret in `RunCreated`: AES-GCM over the JSON of
  the value, all in base64, with the thread's id as associated data.
- `spec` is the version of the envelope, `rules` that of the guard. By `spec` 1, `on_behalf_of` was a list of names
  (outermost first), `request` had no `client`, and there was no `authz`. By `rules` 1, the demand `absent` on a stream
  `meta-` asked for the thread, by `rules` 2 it asks for that stream.
- The first record of every partition of `agentlog.events` is `PartitionOpened`. A position is `base` + offset.
- A flush counts only if its (`epoch`, `n`) is above the last one on its thread. `end` is the event id of the
  `RunFinished` that must be accepted before the flush counts. `of` is the event id of a fact that another process than
  the worker announces. `release` makes the record a fence: it is the event id of a `RunReleased` that is appended after
  the fence. If that fact is accepted, no flush of the epoch after its first fence counts.
"""


READING = """## How to read the log

This is all that a reader needs, in any language; `tests/system/checker` is such a reader, which imports no code of
agentlog.

### Records

1. Read the partitions of `agentlog.events` in the order of their offsets. An aggregate is all commits with one key; they
   are in one partition, so their order is total. Nothing depends on the order of two aggregates.
2. A value that is no JSON object with whole numbers `spec` and `rules`, or in which a field has not the form of "A
   commit" below, is void as `unreadable`. A record whose key belongs to another partition is void as `wrong_partition`.
   A `spec`, `rules` or `schema` above those that you know is of a later release: stop there, do not guess.
3. Put each value that `blobs` names to its place: join the parts of the records of `agentlog.blobs` with that key, from
   `part` 0 to `parts` - 1, and check the SHA-256. If a part is missing, wait; the verdict does not depend on it.
4. Judge the commit. Only accepted commits change anything.

### Verdicts (the guard)

Keep for each aggregate: whether it exists; for each stream its version, which is the number of its accepted commits
minus 1 (none: no version); for each active run its number of claims, its epoch (none while it is not claimed) and
whether a cancel was requested; and event id with `body_sha256` of each accepted commit. Then, in this order:

1. If a commit with this `event_id` was accepted: `duplicate` if `body_sha256` is equal, else void
   `idempotency_key_reused`.
2. If the commit is on a stream `thread-`, `meta-` or `run-` and the aggregate has had such a stream, but does not exist:
   void `gone`, unless the first fact is `ThreadCreated`.
3. Each demand, in the order of `demands`. A number n: the version of that stream is n, else `version_conflict`.
   `exists`: the aggregate exists, else `gone`. `absent`: the aggregate does not exist, else `exists`; but on `run-`, and
   by rules 2 also on `meta-`, it asks whether that stream has no version.
4. Fencing. Without an epoch: a commit on `run-` is void `unfenced`. With an epoch: it must be the present epoch of the
   run of the `run-` stream, or else of every run that the facts name in `run_id` (`RunCreated` does not count, but there
   must be one), else `stale_epoch`.
5. The facts, one after the other, each with the effect of those before it:
   - `RunCreated`: the run is not active, else `run_exists`. It becomes active.
   - `RunClaimed`: the run is active, else `no_such_run`; it has no epoch, else `not_pending`; no cancel was requested,
     else `cancel_requested`; `attempt` is its number of claims + 1, else `wrong_attempt`; no other run of the thread has
     an epoch, else `thread_claimed`. Its epoch is the version of this commit.
   - `RunCancelRequested`: the run is active, else `no_such_run`.
   - `RunReleased`: the run is active, else `no_such_run`; the commit has an epoch, or demands a version of its own
     stream, or created the run, else `unfenced`; its `epoch` is that of the run, else `stale_epoch`. The run loses it.
   - `RunFinished` and `RunDeleted`: as `RunReleased`, without the epoch; but `RunDeleted` may name a run that ended. If
     `view` is not empty and a run has an epoch, it must be this run, and the commit must have an epoch, else
     `view_locked`. The run is not active any more.
   - `StateUpdated`: no run has an epoch, else `view_locked`.
6. Accepted: the version of its stream is one higher. `ThreadCreated` makes the thread exist, and so does the first
   commit of a stream `assistant-`, `cron-`, `store-`, `system-` or `partition-`. After `ThreadDeleted` the thread does
   not exist, no run is active, and the versions of its `run-` streams are gone; all other versions continue. A run that
   ended loses the version of its `run-` stream too.

A void commit does not use up its event id, and nothing of it counts.

### Values of a thread (view changes)

`view` of `StateUpdated`, `RunFinished` and `RunDeleted` changes the object of values that the API shows, {} at first, in
this order: `remove` lists keys to remove; `set` maps keys to new values; `append` maps keys to items that follow the
list of that key (none: []). A part without entries is left out; {} changes nothing.

### Channels of a checkpoint

A checkpoint holds no values. `checkpoint.channel_versions` names the version of each channel, and the value is where a
`CheckpointSaved` states (`channel`, `version`) in `channels`, in the same thread and `checkpoint_ns`; versions are
compared as text. If several do, the last accepted one up to this checkpoint counts. Kind `full`: `value`. Kind `empty`:
the channel has no value. Kind `append`: the list of version `base.version` as stated on the stream `base.stream`, which
has `base.length` items, and `items` after it; follow `base` until a `full` one. A channel that nothing states has no
value. `WritesSaved` belongs to the checkpoint that it names; a write with a negative `index` replaces that of the same
task and index, another one does not. What `CheckpointsHidden` names, and all that a deleted run wrote, is not shown.

### Encodings

| stored | value |
|---|---|
| a text, number, boolean or null | itself |
| `{"json": value}` | the JSON value |
| `{"message": fields}` | a chat message; `fields.type` names its class |
| `{"items": [encoded, ...]}` | a list of encoded values |
| `{"interrupt": {"id", "value"}}` | an interrupt of LangGraph; `value` is encoded (since spec 2) |
| `{"send": {"node", "arg"}}` | a `Send` of LangGraph; `arg` is encoded (since spec 2) |
| `{"type": tag, "base64": text}` | bytes of LangGraph's serializer: `msgpack`, `json`, `bytes`, `pickle` (off by default) |

A write on the channel `__error__` is the text of the exception. Before spec 2, interrupts, `Send` and errors were
`{"type": "msgpack", ...}`. Bytes inside JSON are standard base64, times are ISO 8601 in UTC with microseconds.

### Digests

`body_sha256` is the plain SHA-256 of the command as received: query, line feed and body, or the body alone without a
query. Commits of the server have that of their event id. `{"digest", "salt_id"}` is HMAC-SHA-256 under the salt of the
caller, and `ip_hash` an HMAC of the client's address; both name their key before the dot
([0054](../infra/decisions/0054-digests-of-what-may-be-personal-are-keyed.md)).

### Provenance

`RunCreated` and `RunClaimed` have `provenance`: `graph_id`; `graph_digest`, the SHA-256 of the project's Python files;
`assistant_version`; `agentlog` (before spec 2: `server`), `python`, `langgraph`, `langchain_core`; `libraries` with
versions; `environment_digest`, the SHA-256 of all installed distributions as lines `name==version` in the order of the
alphabet; `git_revision`, null without a repository.
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
        READING,
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
