"""A client that repeats requests until they are answered, and records requests and answers for the checker."""

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

import aiohttp
from tests.system.checker.notes import Change, Effect, Look, Notes, Shown
from tests.system.checker.records import Json as Plain, Value
from tests.system.sse import events

from agentlog_facts.json_value import Json, JsonObject, as_object, dump, load

ANSWER_S = 40.0
"""The time-out of one try: longer than the server's own deadline."""
READ_S = 60.0
"""The time for which a read is repeated."""
AGAIN_S = 0.05
"""The pause before a client repeats a request that had no answer, or whose answer demands it."""
ASK_AGAIN = frozenset({0, 500, 502, 503, 504})


class Client:
    """One session; its changes have an Idempotency-Key and are repeated until they have a final answer."""

    def __init__(self, url: str, name: str, notes: Notes) -> None:
        self.url, self.name, self.notes = url, name, notes
        self.token = ""
        self.delayed: list[str] = []
        """Reads of `show` that were not answered at the first try."""

    async def change(self, method: str, path: str, body: JsonObject, thread_id: str = "", seconds: float = 90) -> Json:
        """Send a change until it has a final answer; record every answer. Fails after this number of seconds."""
        key, end = uuid4().hex, time.monotonic() + seconds
        while True:
            status, token, found = await self._ask(method, path, body, {"Idempotency-Key": key})
            answer = as_object(found) if status < 300 and isinstance(found, dict) else {}
            of = thread_id or str(answer.get("thread_id", ""))
            run_id = str(answer.get("run_id", ""))
            self.notes.changes.append(
                Change(self.name, method, path, dump(body).decode(), status, key, of, run_id, token)
            )
            if status not in ASK_AGAIN:
                assert status < 300, f"{method} {path}: {status} {found}"
                self.token = token
                return found
            assert time.monotonic() < end, f"{method} {path}: still {status} {found} after {seconds:g} s"
            await asyncio.sleep(AGAIN_S)

    async def try_once(self, method: str, path: str, body: JsonObject) -> int:
        """Send a change once without recording it; return the status."""
        status, _, _ = await self._ask(method, path, body, {"Idempotency-Key": uuid4().hex})
        return status

    async def get_once(self, path: str) -> tuple[int, Json]:
        """Read once, without a token; return status and answer, status 0 if there was none."""
        status, _, found = await self._ask("GET", path, None, {})
        return status, found

    async def thread(self) -> str:
        """Create a thread."""
        return str(as_object(await self.change("POST", "/threads", {}))["thread_id"])

    async def start(self, thread_id: str, data: JsonObject, more: JsonObject | None = None) -> str:
        """Create a background run of `steps`."""
        body: JsonObject = {"assistant_id": "steps", "input": data, **(more or {})}
        answer = await self.change("POST", f"/threads/{thread_id}/runs", body, thread_id)
        return str(as_object(answer)["run_id"])

    async def look(self, thread_id: str, run_id: str, *, with_token: bool = False) -> str:
        """Read and record a thread's state and a run's status; return the status, "" if there was no answer."""
        token = self.token if with_token else ""
        headers = {"X-Consistency-Token": token} if token else {}
        status, _, state = await self._ask("GET", f"/threads/{thread_id}/state", None, headers)
        if status == 200:
            point = as_object(state).get("checkpoint")
            checkpoint = as_object(point).get("checkpoint_id") if point else None
            self.notes.looks.append(Look(self.name, thread_id, token, str(checkpoint or "")))
        status, _, run = await self._ask("GET", f"/threads/{thread_id}/runs/{run_id}", None, headers)
        if status not in (200, 404):
            return ""
        shown = str(as_object(run)["status"]) if status == 200 else ""
        self.notes.looks.append(Look(self.name, thread_id, token, "", run_id, shown))
        return shown

    async def show(self, thread_id: str) -> Shown:
        """Read everything about a thread."""
        thread = await self._read(f"/threads/{thread_id}")
        state = await self._read(f"/threads/{thread_id}/state")
        listed = await self._get(f"/threads/{thread_id}/runs?limit=1000")
        runs = [as_object(run) for run in listed] if isinstance(listed, list) else []
        assert thread["values"] == state["values"], f"thread {thread_id} shows two values"
        return Shown(
            thread_id,
            str(thread["status"]),
            plain(state["values"]),
            plain(state["next"]),
            {str(run["run_id"]): str(run["status"]) for run in runs},
        )

    async def stream(self, thread_id: str, run_id: str) -> list[tuple[str, Value]]:
        """Read a run's stream from its start to its end."""
        url = f"{self.url}/threads/{thread_id}/runs/{run_id}/stream"
        return [(event.event, plain(load(event.data.encode()))) async for event in events(url, last_event_id="-1")]

    async def _read(self, path: str) -> JsonObject:
        return as_object(await self._get(path))

    async def _get(self, path: str) -> Json:
        end = time.monotonic() + READ_S
        while True:
            status, _, found = await self._ask("GET", path, None, {})
            if status == 200:
                return found
            self.delayed.append(f"GET {path}: {status} {found}")
            assert status in ASK_AGAIN, self.delayed[-1]
            assert time.monotonic() < end, self.delayed[-1]
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, method: str, path: str, body: Json, headers: dict[str, str]) -> tuple[int, str, Json]:
        """Return status, token and answer; status 0 without an answer."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        data = None if body is None else dump(body)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                async with session.request(method, self.url + path, data=data, headers=headers) as answer:
                    content = await answer.read()
                    token = answer.headers.get("X-Consistency-Token", "")
                    return answer.status, token, load(content) if content.strip() else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, "", None


def plain(value: Json) -> Value:
    """Return JSON in the checker's types."""
    if isinstance(value, dict):
        found: Plain = {name: plain(item) for name, item in value.items()}
        return found
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def effects(steps: Sequence[dict[str, str]]) -> list[Effect]:
    """Return the starts of steps as the checker's effects."""
    return [Effect(line["run_id"], line["step"], int(line["attempt"])) for line in steps if line["edge"] == "start"]
