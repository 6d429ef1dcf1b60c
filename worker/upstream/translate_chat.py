"""Chat Completions chunks in the same words as a Responses stream.

Pure. One `ChatTranslator` per stream, since a chat stream has no snapshot: what a Responses terminal event would
carry is put together here, in the shape of Responses output items.
"""

from __future__ import annotations

from typing import Any, Final

from worker.jobs.record import Usage
from worker.safety.stream import Alive, Created, Delta, Fault, StreamEvent, Terminal
from worker.upstream.fields import table, text, whole
from worker.upstream.problems import problem_of
from worker.upstream.translate import NOT_TEXT, TerminalStatus, is_error, side_signals

_WHOLE: Final = 1 << 30  # characters: content is never cut


class ChatTranslator:
    """Translates the chunks of one chat stream, then says how it ended."""

    def __init__(self) -> None:
        self._begun = False
        self._ended = False
        self._faulted = False
        self._id: str | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._tools: dict[int, dict[str, Any]] = {}

    def feed(self, data: object) -> list[StreamEvent]:
        """What one chunk says; at least one StreamEvent, since any frame proves life."""
        if type(data) is not dict:
            return [Alive(None, "")]
        if data.get("error") or data.get("type") == "error" or is_error(data):
            self._faulted = True
            return [Fault(None, problem_of(data), "chat_chunk")]
        events: list[StreamEvent] = []
        self._model = text(data.get("model")) or self._model
        self._tier = text(data.get("service_tier"), 32) or self._tier
        self._usage = _usage(data.get("usage")) or self._usage
        if not self._begun and text(data.get("id")):
            self._begun = True
            self._id = text(data.get("id"))
            events.append(Created(None, self._id, self._model, "in_progress", self._tier))
        choices = data.get("choices")
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict and (whole(choice.get("index")) or 0) == 0:
                self._finish = text(choice.get("finish_reason"), 64) or self._finish
                events.extend(self._deltas(table(choice.get("delta") or choice.get("message"))))
        main: StreamEvent = next((e for e in events if type(e) is Delta), Alive(None, "chat.completion.chunk"))
        return [*side_signals("", data, main), *(events or [main])]

    def done(self) -> list[StreamEvent]:
        """The terminal event for `[DONE]`, once; nothing before the first chunk or after an error chunk."""
        if self._ended or not self._begun or self._faulted:
            return []
        self._ended = True
        status: TerminalStatus = "completed"
        reason = None
        if self._finish not in (None, "stop", "tool_calls", "function_call"):
            status = "incomplete"
            reason = "max_output_tokens" if self._finish == "length" else self._finish
        return [
            Terminal(
                None,
                status,
                model=self._model,
                usage=self._usage,
                output=self._output(status),
                incomplete_reason=reason,
                service_tier=self._tier,
                carrier="chat_chunk",
                response_id=self._id,
            )
        ]

    def end(self) -> list[StreamEvent]:
        """The terminal event when the stream ended without `[DONE]`: only if a finish_reason had been seen."""
        return self.done() if self._finish is not None else []

    def _deltas(self, delta: dict[str, Any]) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        if piece := text(delta.get("content"), _WHOLE):
            self._text.append(piece)
            events.append(Delta(None, piece))
        if piece := text(delta.get("refusal"), _WHOLE):
            self._refusal.append(piece)
            events.append(Delta(None, piece, "refusal"))
        thoughts = (text(delta.get(name), _WHOLE) for name in ("reasoning_content", "reasoning"))  # other providers
        events += [Delta(None, piece, "other") for piece in thoughts if piece]
        calls = delta.get("tool_calls")
        calls = list(calls) if type(calls) is list else []
        if type(delta.get("function_call")) is dict:
            calls.append({"index": 0, "function": delta["function_call"]})
        for position, call in enumerate(calls):
            if type(call) is dict:
                events.append(Delta(None, self._tool(call, position) or NOT_TEXT, "other"))
        return events

    def _tool(self, call: dict[str, Any], position: int) -> str | None:
        index = whole(call.get("index"))
        kept = self._tools.setdefault(position if index is None else index, {"id": None, "name": None, "pieces": []})
        function = table(call.get("function"))
        kept["id"] = text(call.get("id"), 256) or kept["id"]
        kept["name"] = text(function.get("name"), 256) or kept["name"]
        piece = text(function.get("arguments"), _WHOLE)
        if piece:
            kept["pieces"].append(piece)
        return piece

    def _output(self, status: str) -> tuple[dict[str, Any], ...]:
        """The answer as Responses output items, so that it has one shape in every mode."""
        tail = (self._id or "").removeprefix("chatcmpl-") or "0"
        content: list[dict[str, Any]] = []
        if self._text:
            content.append({"type": "output_text", "text": "".join(self._text), "annotations": [], "logprobs": []})
        if self._refusal:
            content.append({"type": "refusal", "refusal": "".join(self._refusal)})
        items: list[dict[str, Any]] = []
        if content:
            items.append(
                {"id": f"msg_{tail}", "type": "message", "status": status, "role": "assistant", "content": content}
            )
        for index, kept in sorted(self._tools.items()):
            items.append(
                {
                    "id": f"fc_{tail}_{index}",
                    "type": "function_call",
                    "status": status,
                    "call_id": kept["id"] or f"call_{tail}_{index}",
                    "name": kept["name"] or "",
                    "arguments": "".join(kept["pieces"]),
                }
            )
        return tuple(items)


def translate_chat_completion(data: object) -> list[StreamEvent]:
    """What an unstreamed chat completion says, from a server that did not heed `stream`."""
    translator = ChatTranslator()
    events = translator.feed(data)
    return [*events, *translator.end()]


def _usage(value: object) -> Usage | None:
    data = table(value)
    spent, made = whole(data.get("prompt_tokens")), whole(data.get("completion_tokens"))
    if spent is None and made is None:
        return None
    total = whole(data.get("total_tokens"))
    return Usage(
        input_tokens=spent or 0,
        cached_input_tokens=whole(table(data.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        output_tokens=made or 0,
        reasoning_tokens=whole(table(data.get("completion_tokens_details")).get("reasoning_tokens")) or 0,
        total_tokens=(spent or 0) + (made or 0) if total is None else total,
    )
