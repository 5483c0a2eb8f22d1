"""Record of the settings of topics that Kafka does not show and an operator has accepted (AGENTLOG_KAFKA_ACCEPT)."""

import asyncio
import logging
from collections.abc import Sequence

from agentlog_commands.command import Decision, Refused
from agentlog_commands.identity import digest
from agentlog_commands.submit import Intent, Voided
from agentlog_commands.system import KAFKA, KAFKA_KEY, AcceptKafkaSettings, acceptance_id
from agentlog_facts.back_off import back_off
from agentlog_facts.envelope import Actor, Cause
from agentlog_facts.errors import AgentlogError, Conflict, Corrupt, Unavailable
from agentlog_facts.ports import Indexed
from agentlog_facts.system import KafkaSettingsAccepted
from agentlog_gateway import timeouts
from agentlog_gateway.api.dependencies import Dependencies

log = logging.getLogger(__name__)

OPERATOR = Actor("system", "operator")


async def record_accepted_settings(dependencies: Dependencies, settings: Sequence[str], host: str) -> None:
    """Record a changed acceptance once, however many gateways start with it; retry until rows and log answer."""
    command = AcceptKafkaSettings(tuple(sorted(settings)), host)
    for pause_s in back_off(timeouts.START_COMMIT_FIRST_RETRY_S, timeouts.START_COMMIT_LONGEST_RETRY_S):
        try:
            return await _record(dependencies, command)
        except (Unavailable, Conflict) as error:  # the projection is being built, or another gateway was faster
            log.info("accepted_settings.waiting", extra={"error": str(error)})
        except Corrupt as error:  # the rows are of another copy of the log, or a newer release wrote the record
            log.error("accepted_settings.unreadable", extra={"stream": KAFKA, "error": str(error)})
        await asyncio.sleep(pause_s)


async def _record(dependencies: Dependencies, command: AcceptKafkaSettings) -> None:
    await dependencies.caught_up.require(KAFKA_KEY, fresh=True)
    version, newest = await _newest(dependencies)
    event_id = acceptance_id(version)

    async def decide() -> Decision:
        return command.decide(newest)

    body = digest("\n".join(command.settings).encode())
    intent = Intent(KAFKA_KEY, event_id, body, Cause(OPERATOR, event_id), serial=True)
    done = await dependencies.submitter.submit(
        intent, decide, dependencies.clock.monotonic() + dependencies.limits.deadline_s
    )
    if isinstance(done, Voided):
        raise AgentlogError(f"{KAFKA}: {done.void}")
    if not isinstance(done, Refused) and not done.duplicate:
        log.warning("accepted_settings.recorded", extra={"stream": KAFKA, "settings": list(command.settings)})


async def _newest(dependencies: Dependencies) -> tuple[int, KafkaSettingsAccepted | None]:
    """Return the number of acceptances so far, which is the version of the next one, and the newest one."""
    version, last = 0, None
    while (row := await dependencies.ledger.accepted(KAFKA_KEY, acceptance_id(version))) is not None:
        version, last = version + 1, row
    return version, None if last is None else await _read(dependencies, last)


async def _read(dependencies: Dependencies, row: Indexed) -> KafkaSettingsAccepted:
    fact = (await dependencies.log.read(row.place)).draft.facts[0]
    if not isinstance(fact, KafkaSettingsAccepted):
        raise Corrupt(f"{KAFKA}: expected KafkaSettingsAccepted, found {type(fact).__name__}")
    return fact
