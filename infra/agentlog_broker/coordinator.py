"""Coordinator of a consumer group (Kafka's classic, eager protocol).

States and responses follow Kafka's GroupCoordinator. Members are kept in memory: after a restart they join again.
Generations start at 1, because aiokafka sends no LeaveGroup for generation 0.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .errors import Code
from .settings import BrokerSettings

log = logging.getLogger("agentlog_broker")

State = Literal["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"]


@dataclass(frozen=True, slots=True)
class Join:
    """Request of a member to join; times in seconds."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    session_s: float
    rebalance_s: float
    protocol_type: str
    protocols: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Joined:
    """Response to a join; `members` (id, instance, metadata) is filled for the leader only."""

    code: int
    member_id: str
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    members: list[tuple[str, str | None, bytes]] = field(default_factory=list[tuple[str, str | None, bytes]])


JoinReply = Callable[[Joined], None]
SyncReply = Callable[[int, bytes], None]


@dataclass(slots=True)
class Member:
    """Member of a group, with the responses that it waits for."""

    member_id: str
    join: Join
    deadline: float
    assignment: bytes = b""
    join_reply: JoinReply | None = None
    sync_reply: SyncReply | None = None


class Group:
    """Consumer group: its state, its generation and its members."""

    def __init__(self, name: str, settings: BrokerSettings) -> None:
        self.name = name
        self.state: State = "Empty"
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members: dict[str, Member] = {}
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._rebalance: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._forming = False

    # -- joining

    def join(self, join: Join, reply: JoinReply) -> None:
        """Add a member, or update it; the response follows when the group is complete."""
        code = self._objection(join)
        if code:
            reply(Joined(code, join.member_id))
            return
        if join.instance_id is not None and not join.member_id:
            old = self._instance(join.instance_id)
            if old is not None:
                self._replace_static(old, join, reply)
                return
        member = self.members.get(join.member_id)
        if member is None:
            self._add(join, reply)
        else:
            self._join_again(member, join, reply)

    def _objection(self, join: Join) -> int:
        if not 0 < join.session_s <= self._settings.group_session_max_s:
            return Code.INVALID_SESSION_TIMEOUT
        if not join.protocols:
            return Code.INCONSISTENT_GROUP_PROTOCOL
        if join.member_id:
            if join.instance_id is not None:
                holder = self._instance(join.instance_id)
                if holder is not None and holder.member_id != join.member_id:
                    return Code.FENCED_INSTANCE_ID
            if join.member_id not in self.members:
                return Code.UNKNOWN_MEMBER_ID
        others = [m for m in self.members.values() if m.member_id != join.member_id]
        if others:
            common = set(join.protocols).intersection(*(m.join.protocols for m in others))
            if self.protocol_type != join.protocol_type or not common:
                return Code.INCONSISTENT_GROUP_PROTOCOL
        return Code.NONE

    def _instance(self, instance_id: str) -> Member | None:
        return next((m for m in self.members.values() if m.join.instance_id == instance_id), None)

    def _add(self, join: Join, reply: JoinReply) -> None:
        member_id = f"{join.instance_id or join.client_id or 'member'}-{uuid.uuid4()}"
        self.protocol_type = join.protocol_type
        member = Member(member_id, join, self._loop.time() + join.session_s)
        self.members[member_id] = member
        member.join_reply = reply
        self._prepare()

    def _replace_static(self, old: Member, join: Join, reply: JoinReply) -> None:
        """Replace a static member that has restarted; a stable group needs no rebalance for it."""
        if old.join_reply is not None:
            old.join_reply(Joined(Code.FENCED_INSTANCE_ID, old.member_id))
        if old.sync_reply is not None:
            old.sync_reply(Code.FENCED_INSTANCE_ID, b"")
        unchanged = old.join.protocols == join.protocols
        member = Member(f"{join.instance_id}-{uuid.uuid4()}", join, self._loop.time() + join.session_s, old.assignment)
        del self.members[old.member_id]
        self.members[member.member_id] = member
        former_leader = self.leader
        if self.leader == old.member_id:
            self.leader = member.member_id
        self._watch()
        if self.state == "Stable" and unchanged:
            # The response has the old id of a leader, so that it does not assign: a stable group would ignore it.
            reply(Joined(Code.NONE, member.member_id, self.generation, self.protocol, former_leader))
            return
        member.join_reply = reply
        self._prepare()

    def _join_again(self, member: Member, join: Join, reply: JoinReply) -> None:
        unchanged = member.join.protocols == join.protocols
        member.join = join
        self._alive(member)
        repeats = self.state == "CompletingRebalance" or (self.state == "Stable" and member.member_id != self.leader)
        if unchanged and repeats:
            reply(self._joined(member))
            return
        if member.join_reply is not None:
            member.join_reply(Joined(Code.UNKNOWN_MEMBER_ID, member.member_id))
        member.join_reply = reply
        self._prepare()

    # -- rebalancing

    def _prepare(self) -> None:
        """Start a rebalance, or continue the running one."""
        if self.state != "PreparingRebalance":
            self._forming = self.state == "Empty"
            self.state = "PreparingRebalance"
            for member in self.members.values():
                self._answer_sync(member, Code.REBALANCE_IN_PROGRESS, b"")
            longest = max(m.join.rebalance_s for m in self.members.values())
            wait_s = self._settings.group_initial_delay_s if self._forming else longest
            self._rebalance = self._loop.call_later(wait_s, self._complete)
        if not self._forming and all(m.join_reply is not None for m in self.members.values()):
            self._complete()
        self._watch()

    def _complete(self) -> None:
        """End the joining phase with the members that have joined."""
        if self._rebalance is not None:
            self._rebalance.cancel()
            self._rebalance = None
        self._forming = False
        for member in list(self.members.values()):
            if member.join_reply is None and member.join.instance_id is None:
                del self.members[member.member_id]
        self.generation += 1
        if not any(m.join_reply is not None for m in self.members.values()):
            self._empty_or_wait()
            return
        self.protocol = self._vote()
        leader = self.members.get(self.leader)
        if leader is None or leader.join_reply is None:
            self.leader = next(m.member_id for m in self.members.values() if m.join_reply is not None)
        self.state = "CompletingRebalance"
        log.info(
            "group.rebalanced", extra={"group": self.name, "generation": self.generation, "members": len(self.members)}
        )
        for member in self.members.values():
            if member.join_reply is not None:
                self._alive(member)
                reply, member.join_reply = member.join_reply, None
                reply(self._joined(member))
        self._watch()

    def _empty_or_wait(self) -> None:
        """Reset the group when no member has joined; static members may come back within their session."""
        self.state = "Empty"
        self.protocol = self.leader = ""
        self._watch()

    def _vote(self) -> str:
        common = set[str].intersection(*(set(m.join.protocols) for m in self.members.values()))
        votes = Counter(next(p for p in m.join.protocols if p in common) for m in self.members.values())
        return votes.most_common(1)[0][0]

    def _joined(self, member: Member) -> Joined:
        members = [
            (m.member_id, m.join.instance_id, m.join.protocols.get(self.protocol, b"")) for m in self.members.values()
        ]
        shown = members if member.member_id == self.leader else []
        return Joined(Code.NONE, member.member_id, self.generation, self.protocol, self.leader, shown)

    def sync(self, member_id: str, generation: int, assignments: dict[str, bytes], reply: SyncReply) -> None:
        """Apply the assignment of the leader, or wait for it."""
        code = self.check(member_id, generation)
        if code:
            reply(code, b"")
            return
        member = self.members[member_id]
        if self.state == "Stable":
            reply(Code.NONE, member.assignment)
            return
        member.sync_reply = reply
        if member_id == self.leader:
            self.state = "Stable"
            for each in self.members.values():
                each.assignment = assignments.get(each.member_id, b"")
                self._answer_sync(each, Code.NONE, each.assignment)

    @staticmethod
    def _answer_sync(member: Member, code: int, assignment: bytes) -> None:
        reply, member.sync_reply = member.sync_reply, None
        if reply is not None:
            reply(code, assignment)

    # -- staying and leaving

    def check(self, member_id: str, generation: int) -> int:
        """Extend the session of a member; return the error code for its request, 0 if there is none."""
        member = self.members.get(member_id)
        if member is None:
            return Code.UNKNOWN_MEMBER_ID
        if generation != self.generation:
            return Code.ILLEGAL_GENERATION
        self._alive(member)
        return Code.REBALANCE_IN_PROGRESS if self.state == "PreparingRebalance" else Code.NONE

    def leave(self, member_id: str) -> int:
        """Remove a member."""
        if member_id not in self.members:
            return Code.UNKNOWN_MEMBER_ID
        self._remove([member_id])
        return Code.NONE

    def _remove(self, member_ids: list[str]) -> None:
        for member_id in member_ids:
            member = self.members.pop(member_id)
            if member.join_reply is not None:
                member.join_reply(Joined(Code.UNKNOWN_MEMBER_ID, member_id))
            self._answer_sync(member, Code.UNKNOWN_MEMBER_ID, b"")
        if self.members:
            self._prepare()
        else:
            self._complete()

    def _alive(self, member: Member) -> None:
        member.deadline = self._loop.time() + member.join.session_s

    def _watch(self) -> None:
        """Schedule the next look for expired sessions; members that wait for a response are alive."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        waiting = [m.deadline for m in self.members.values() if m.join_reply is None]
        if waiting:
            self._expiry = self._loop.call_at(min(waiting), self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        late = [m.member_id for m in self.members.values() if m.join_reply is None and m.deadline <= now]
        if late:
            log.info("group.members_expired", extra={"group": self.name, "members": len(late)})
            self._remove(late)
        self._watch()
