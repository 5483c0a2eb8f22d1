"""Chat model without a model: a rule gives the answer, which is streamed word by word."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from agentlog_infra.examples.message_text import text_of

Rule = Callable[[Sequence[BaseMessage]], AIMessage]


class ScriptedChatModel(BaseChatModel):
    """Model that answers by a rule: the same conversation always gets the same text, so that runs can be compared."""

    rule: Rule
    pause_ms: float = 0.0
    """Milliseconds between two tokens, like the delay of a real model."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        answer = self.rule(messages)
        answer.usage_metadata = _usage(messages, answer)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, self.rule(messages)):
            time.sleep(self.pause_ms / 1000)
            yield ChatGenerationChunk(message=chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, self.rule(messages)):
            if self.pause_ms:
                await asyncio.sleep(self.pause_ms / 1000)
            yield ChatGenerationChunk(message=chunk)


def _words(text: str) -> list[str]:
    """Split a text into words with the space after them: joined, they are the text."""
    return re.findall(r"\S+\s*|\s+", text)


def _usage(messages: Sequence[BaseMessage], answer: AIMessage) -> UsageMetadata:
    asked = sum(len(_words(text_of(message))) for message in messages)
    answered = len(_words(text_of(answer)))
    return UsageMetadata(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered)


def _chunks(messages: Sequence[BaseMessage], answer: AIMessage) -> Iterator[AIMessageChunk]:
    """Yield the answer like a streaming model: words, then tool calls, then the count of tokens."""
    for word in _words(text_of(answer)):
        yield AIMessageChunk(content=word)
    for index, call in enumerate(answer.tool_calls):
        piece = tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        yield AIMessageChunk(content="", tool_call_chunks=[piece])
    yield AIMessageChunk(content="", usage_metadata=_usage(messages, answer), chunk_position="last")
