"""Decides when a run is over for whoever waits, and what wait and join answer then: from facts only.

Source: docs/http-api.md, sections 7.6 and 27.
"""

import asyncio
import logging

from agentlog_facts.errors import Unavailable
from agentlog_facts.graph_ports import At, GraphNotFound, unrooted
from agentlog_facts.ids import RunId
from agentlog_facts.json_value import Json, JsonObject
from agentlog_gateway.api.dependencies import Dependencies
from agentlog_gateway.http.responses import encode
from agentlog_projections.queries.command_context import RunResult

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""The safety net: how long a waiter trusts hints before it looks at the row itself."""
PATIENCE_S = 60.0
"""Rows that stay away longer end the wait; the client comes back by itself."""
NO_RUN: JsonObject = {"__error__": {"error": "HTTPException", "message": "404: Run not found"}}


class RunWait:
    """A wait for one run; enter it before the run is created, so that its end cannot be missed."""

    def __init__(self, dependencies: Dependencies, run_id: RunId) -> None:
        self._dependencies = dependencies
        self._run_id = run_id
        self._watch = dependencies.waits.run_ended(run_id)
        self._over = self._watch.__enter__()
        self._closed = False

    def close(self) -> None:
        """Give the watch back; more than once does no harm."""
        if not self._closed:
            self._closed = True
            self._watch.__exit__(None, None, None)

    async def over(self, *, look_first: bool) -> RunResult | None:
        """Return the run once it is over, None when there is no such run.

        Raises: Unavailable when the rows stayed away for PATIENCE_S.
        """
        try:
            return await self._over_now(look_first)
        finally:
            self.close()

    async def _over_now(self, look_first: bool) -> RunResult | None:
        away_since: float | None = None
        while True:
            if not look_first:
                await self._hint()
            look_first = False
            try:
                found = await self._dependencies.contexts.result(self._run_id)
            except Unavailable as error:
                away_since = away_since or self._dependencies.clock.monotonic()
                if self._dependencies.clock.monotonic() - away_since > PATIENCE_S:
                    raise
                log.warning("wait.rows_away", extra={"run_id": self._run_id, "error": str(error)})
                continue
            away_since = None
            if found is None or found.deleted or found.status not in ("pending", "running"):
                return found

    async def _hint(self) -> None:
        """Return when a hint came since the last look, or after LOOK_S: the caller looks for itself."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._over.wait()
        except TimeoutError:
            return
        self._over.clear()


async def creators_document(dependencies: Dependencies, wait: RunWait, *, look_first: bool = False) -> bytes:
    """Return what the creator of a run gets: values, interrupts or the error."""
    found = await wait.over(look_first=look_first)
    return encode(NO_RUN if found is None else await result_json(dependencies, found))


async def joiners_document(dependencies: Dependencies, wait: RunWait) -> bytes:
    """Return what somebody gets who joins a run; a rolled back one leaves nothing to see."""
    found = await wait.over(look_first=True)
    if found is not None and found.status == "rollback":
        return b"{}"
    if found is None or (found.deleted and not found.thread_deleted):
        return encode(NO_RUN)
    return encode(await result_json(dependencies, found))


async def cancelled_document(wait: RunWait) -> bytes:
    """Return what a waiting cancel gets once the run has stopped."""
    await wait.over(look_first=True)
    return b"{}"


async def result_json(dependencies: Dependencies, found: RunResult) -> Json:
    """Return the result of a run that is over."""
    if found.status == "error" and found.error is not None:
        return {"__error__": found.error}
    if found.deleted and found.status in ("pending", "running"):
        return NO_RUN
    values = await _values(dependencies, found)
    waiting = [item for items in (found.interrupts or {}).values() if isinstance(items, list) for item in items]
    if not waiting:
        return values
    shown: list[Json] = [_with_schema(item) for item in waiting]
    return {**(values if isinstance(values, dict) else {}), "__interrupt__": shown}


def _with_schema(item: Json) -> Json:
    return {**item, "response_schema": item.get("response_schema")} if isinstance(item, dict) else item


async def _values(dependencies: Dependencies, found: RunResult) -> Json:
    """Return the values as the run left them: the thread's, or those of its last checkpoint."""
    if found.newest or found.checkpoint_id is None:
        return unrooted(found.values or {})
    try:
        at = At(found.checkpoint_id)
        return (await dependencies.graphs.get_state(found.graph_id, found.thread_id, at))["values"]
    except GraphNotFound:
        return {}
