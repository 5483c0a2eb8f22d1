"""One example of every fact type, for docs/log.md."""

from datetime import UTC, datetime, timedelta

from agentlog_facts.assistant import (
    AssistantCreated,
    AssistantDeleted,
    AssistantDeletionAsked,
    AssistantRevised,
    AssistantVersionSelected,
)
from agentlog_facts.checkpoint import CheckpointSaved, CheckpointsHidden, WritesSaved
from agentlog_facts.cron import (
    CronCreated,
    CronDeleted,
    CronFired,
    CronFiringEnded,
    CronRevised,
    CronSlotsSkipped,
)
from agentlog_facts.envelope import Fact
from agentlog_facts.ids import AssistantId, CronId, RunId, ThreadId
from agentlog_facts.json_value import JsonObject
from agentlog_facts.keyed_digest import KeyedDigest
from agentlog_facts.store import StoreItemDeleted, StoreItemPut
from agentlog_facts.system import CommandRefused, KafkaSettingsAccepted, PartitionOpened
from agentlog_facts.thread import (
    RunAlive,
    RunCancelRequested,
    RunClaimed,
    RunCreated,
    RunDeleted,
    RunFinished,
    RunReleased,
    StateUpdated,
    ThreadCopied,
    ThreadCreated,
    ThreadDeleted,
    ThreadMetadataPatched,
    ThreadPruned,
    ThreadTtlSet,
)
from agentlog_facts.thread_copy import ThreadCopyAsked, ThreadCopyContinued, ThreadCopyGivenUp

THREAD = ThreadId("019ab000-0000-7000-8000-000000000001")
COPY = ThreadId("019ab000-0000-7000-8000-000000000009")
RUN = RunId("019ab000-0000-7000-8000-000000000002")
CRON = CronId("019ab000-0000-7000-8000-000000000009")
DAILY: JsonObject = {"assistant_id": "agent", "schedule": "0 9 * * *", "input": {"messages": []}}
ASSISTANT = AssistantId("fe096781-5601-53d2-b2f6-0d3403f7e9ca")
FIRST, SECOND = "1f0c7a10-0000-6000-8000-000000000001", "1f0c7a10-0000-6001-8000-000000000002"
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
INTERRUPT: JsonObject = {"5a1c": [{"id": "9f3e", "value": {"question": "Send it?"}}]}
CANCELLED: JsonObject = {"error": "UserInterrupt", "message": "interrupt requested"}

EXAMPLES: tuple[Fact, ...] = (
    ThreadCreated(THREAD, {"customer": "42"}, ttl={"strategy": "keep_latest", "ttl_minutes": 90}),
    ThreadMetadataPatched(THREAD, {"title": "Invoice"}),
    ThreadTtlSet(THREAD, {"strategy": "delete", "ttl_minutes": 1440}),
    ThreadPruned(THREAD),
    ThreadCopyAsked(
        COPY, THREAD, AT, {"thread": 4, "meta": None}, 21, {"customer": "42"}, None, {"set": {"sent": True}}, (), {}
    ),
    ThreadCopyContinued(COPY, 21),
    ThreadCopyGivenUp(COPY, "late"),
    ThreadCopied(COPY, THREAD, {"set": {"sent": True}}, (), {}),
    ThreadDeleted(THREAD),
    StateUpdated(
        THREAD,
        "",
        SECOND,
        {"set": {"approved": True}},
        ("send",),
        {},
        {"values": {"approved": True}, "as_node": "ask", "checkpoint": None, "checkpoint_id": FIRST},
    ),
    RunCreated(
        RUN,
        THREAD,
        {
            "assistant_id": ASSISTANT,
            "graph_id": "agent",
            "version": 1,
            "config": {},
            "context": {},
            "metadata": {"created_by": "system"},
        },
        {"created_by": "system", "graph_id": "agent", "assistant_id": ASSISTANT},
        {"input": {"messages": [{"role": "user", "content": "Send the invoice"}]}, "stream_mode": ["values"]},
        "enqueue",
        due_at=AT,
        thread_config={"configurable": {}, "tags": ["billing"]},
        resumes=({"interrupt_id": "9f3e", "task_id": "5a1c", "checkpoint_id": FIRST},),
        consistency_token="1:3:42",
    ),
    RunClaimed(
        RUN,
        "019ab000-0000-7000-8000-00000000000a",
        1,
        4096,
        {"name": "worker", "host": "machine-1", "pid": 4711, "version": "0.1.0"},
    ),
    RunReleased(RUN, 2, "lost", counts=True),
    RunAlive(RUN),
    RunCancelRequested(RUN, "interrupt", AT, CANCELLED),
    RunFinished(
        RUN,
        "success",
        None,
        {"append": {"messages": [{"type": "ai", "content": "Sent."}]}},
        (),
        INTERRUPT,
        SECOND,
        8192,
    ),
    RunDeleted(RUN, {"remove": ["messages"]}, (), {}),
    AssistantCreated(ASSISTANT, "agent", {}, {}, {"created_by": "system"}, "agent", None),
    AssistantRevised(ASSISTANT, 2, "agent", {}, {}, {"created_by": "system"}, "agent", "Sends invoices"),
    AssistantVersionSelected(ASSISTANT, 1, "agent", {}, {}, {"created_by": "system"}, "agent", None),
    AssistantDeletionAsked(ASSISTANT, (THREAD,), {RUN: "019ab000-0000-7000-8000-000000000003"}),
    AssistantDeleted(ASSISTANT),
    CronCreated(CRON, ASSISTANT, None, "0 9 * * *", "Europe/Paris", None, DAILY, {}, "delete", True, AT),
    CronRevised(CRON, ASSISTANT, None, "0 9 * * *", "Europe/Paris", None, DAILY, {}, "keep", True, AT),
    CronSlotsSkipped(CRON, AT, AT + timedelta(days=2), AT + timedelta(days=2)),
    CronFired(CRON, AT, RUN, THREAD, AT + timedelta(days=1)),
    CronFiringEnded(CRON, AT, RUN, None),
    CronDeleted(CRON),
    CheckpointSaved(
        THREAD,
        RUN,
        "",
        SECOND,
        FIRST,
        {"v": 4, "id": SECOND, "ts": "2026-01-02T03:04:05+00:00", "channel_versions": {"messages": "2.7"}},
        {"source": "loop", "step": 1},
        (
            {
                "channel": "messages",
                "version": "2.7",
                "kind": "append",
                "items": [{"json": "Sent."}],
                "base": {"stream": f"run-{RUN}", "version": "1.3", "length": 1},
            },
        ),
    ),
    WritesSaved(
        THREAD,
        RUN,
        "",
        SECOND,
        "task-1",
        "~__pregel_pull, send",
        ({"index": 0, "channel": "sent", "value": {"json": 1}},),
    ),
    CheckpointsHidden(THREAD, ({"ns": "", "checkpoint_id": FIRST},), "prune"),
    StoreItemPut(("users", "ana"), "tea", {"kind": "green"}, THREAD, RUN, 2),
    StoreItemDeleted(("users", "ana"), "tea"),
    PartitionOpened("019ab000-0000-7000-8000-00000000000f", 1, 0, 8, 0),
    CommandRefused(
        "CancelRun",
        "run_not_active",
        {"thread_id": THREAD, "run_id": RUN},
        KeyedDigest("a" * 64, "0123456789abcdef.fedcba9876543210"),
    ),
    KafkaSettingsAccepted(("agentlog.events unclean.leader.election.enable=false",), "gateway-1"),
)
