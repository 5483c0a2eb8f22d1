"""Answers that are remembered by the version of the rows from which they were read, within a budget of bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from agentlog_facts.ids import ThreadId
from agentlog_facts.lru import Lru
from agentlog_gateway.http.responses import document_response

CACHE_BYTES = 64 * 1024 * 1024
"""Bytes of all remembered answers, if no setting says otherwise."""
LARGEST_SHARE = 8
"""An answer that would take more than this part of the budget is not remembered."""
ENTRY_BYTES = 512
"""Approximate size of an entry without its question and its body."""


class Answer:
    """Body of a response in JSON. `lasting`: the same rows give the same body again."""

    def __init__(self, body: bytes, *, lasting: bool) -> None:
        self.body = body
        self.lasting = lasting

    @cached_property
    def tag(self) -> str:
        """The entity tag: a digest of the body, so that it is the same on every gateway."""
        return f'"{sha256(self.body).hexdigest()[:32]}"'

    def headers(self) -> Mapping[str, str]:
        """Return the headers by which a client asks later whether the answer has changed."""
        return {"ETag": self.tag, "Cache-Control": "private, no-cache"}

    def is_known(self, if_none_match: str) -> bool:
        """Return whether a client has this body, by its If-None-Match."""
        return any(one.strip().removeprefix("W/") in ("*", self.tag) for one in if_none_match.split(","))


@dataclass(frozen=True, slots=True)
class _Entry:
    version: str
    answer: Answer
    number: int


class RememberedAnswers:
    """Keeps the last answer to each question about a thread, and forgets those that nobody asked for lately.

    Rows may move on while an answer is read from them. So an answer serves only those questions whose version was read
    after it was remembered: since versions never return, its rows then had this version all the time.
    """

    def __init__(self, budget_bytes: int = CACHE_BYTES) -> None:
        self._budget_bytes = budget_bytes
        self._entries: Lru[tuple[ThreadId, bytes], _Entry] = Lru(budget_bytes)
        self._number = 0

    def now(self) -> int:
        """Return the present moment, to be noted before a version is read."""
        return self._number

    def find(self, thread_id: ThreadId, question: bytes, version: str, read_at: int) -> Answer | None:
        """Return the answer to a question at this version, which was read at the moment `read_at` or later."""
        found = self._entries.get((thread_id, question))
        if found is None or found.version != version or found.number > read_at:
            return None
        return found.answer

    def remember(self, thread_id: ThreadId, question: bytes, version: str, answer: Answer) -> None:
        """Keep an answer that was read after the version, unless it is too large or its rows alone do not decide it."""
        weight = len(answer.body) + len(question) + ENTRY_BYTES
        if answer.lasting and weight * LARGEST_SHARE <= self._budget_bytes:
            self._number += 1
            self._entries.put((thread_id, question), _Entry(version, answer, self._number), weight)


def answer_response(request: Request, answer: Answer) -> Response:
    """Return the response: to a GET with the entity tag, and without the body if the client has it already.

    `If-None-Match` of a POST has no meaning, so a POST gets no tag.
    """
    if request.method not in ("GET", "HEAD"):
        return document_response(answer.body)
    if answer.is_known(",".join(request.headers.getlist("if-none-match"))):
        return Response(status_code=304, headers=answer.headers())
    return document_response(answer.body, answer.headers())
