"""Creation of one assistant per graph, before the gateway is ready. Source: docs/http-api.md, section 4.1."""

import asyncio
import logging

from agentlog_commands.assistants import EnsureSystemAssistant, system_assistant_id
from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import digest
from agentlog_commands.submit import Intent, Voided
from agentlog_facts.back_off import back_off
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.errors import AgentlogError, Unavailable
from agentlog_facts.ids import Key
from agentlog_gateway import timeouts
from agentlog_gateway.api.dependencies import Dependencies

log = logging.getLogger(__name__)

SYSTEM = Actor("system", "gateway")


async def ensure_system_assistants(dependencies: Dependencies) -> None:
    """Create or update the assistant of each graph; retry until rows and log answer."""
    for graph_id in dependencies.graphs.graph_ids():
        for pause_s in back_off(timeouts.START_COMMIT_FIRST_RETRY_S, timeouts.START_COMMIT_LONGEST_RETRY_S):
            try:
                await _ensure(dependencies, graph_id)
                break
            except Unavailable as error:
                log.info("assistants.waiting", extra={"graph": graph_id, "error": str(error)})
                await asyncio.sleep(pause_s)  # the projection is being built


async def _ensure(dependencies: Dependencies, graph_id: str) -> None:
    assistant_id = system_assistant_id(graph_id)
    command = EnsureSystemAssistant(graph_id, dependencies.graphs.description(graph_id))
    event_id = dependencies.ids.uuid7()

    async def decide() -> Decision:
        partition = dependencies.log.partition_of(Key(assistant_id))
        found = await dependencies.contexts.assistant(assistant_id, partition)
        told = None if found.row is None else found.row.system_description
        return command.decide(found.state, found.version, told)

    intent = Intent(Key(assistant_id), event_id, digest(b""), Cause(SYSTEM, event_id), serial=True)
    done = await dependencies.submitter.submit(
        intent, decide, dependencies.clock.monotonic() + dependencies.limits.deadline_s
    )
    if isinstance(done, Voided) and done.void.reason != "exists":  # another gateway may have created it meanwhile
        raise AgentlogError(f"assistant of graph {graph_id}: {done.void}")
    if not isinstance(done, Refused):
        log.info("assistant.ensured", extra={"graph": graph_id, "stream": f"assistant-{assistant_id}"})
