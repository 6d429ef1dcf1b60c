"""Translates Chat Completions chunks into the same StreamEvents as a Responses stream.

Pure. One `ChatTranslator` per stream, since a chat stream has no snapshot: it assembles what a Responses terminal event
would have, in the shape of Responses output items.
"""

from __future__ import annotations

from typing import Any, Final

from worker.jobs.record import Usage
from worker.safety.finish import NO_REASON, UNKNOWN, Finish, finish_word, meaning
from worker.safety.stream import Created, Delta, Keepalive, ProviderProblem, StreamError, StreamEvent, Terminal
from worker.upstream.call_outcome import outcome_code
from worker.upstream.content import ContentReader
from worker.upstream.problems import is_empty_error, problem_of
from worker.upstream.response_details import UNFILTERED, is_unfiltered, moderation_blocked
from worker.upstream.surrogates import join_surrogates
from worker.upstream.tolerant_fields import bounded_identifier, mapping, non_negative, text, text_or_number, usage_of
from worker.upstream.tool_calls import ToolCalls
from worker.upstream.translate import NOT_TEXT, TerminalStatus, is_error, side_signals, terminal_for_finish

_UNLIMITED: Final = 1 << 30  # characters: content is never cut
_MAX_CHOICES: Final = 128
_REASONING_KEYS: Final = ("reasoning_content", "reasoning")  # other providers


class _Choice:
    """One choice while its pieces come in."""

    def __init__(self) -> None:
        self.finish: str | None = None
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.logprobs: list[dict[str, Any]] = []
        self.calls = ToolCalls()

    @property
    def empty(self) -> bool:
        """Return whether the choice has no content yet."""
        return not (self.text or self.refusal or self.calls)


class ChatTranslator:
    """Translates the chunks of one chat stream and its end."""

    def __init__(self) -> None:
        self._created_sent = False
        self._ended = False
        self._faulted = False
        self._id: str | None = None
        self._model: str | None = None
        self._tier: str | None = None
        self._usage: Usage | None = None
        self._reading = ContentReader()
        self._flags: set[str] = set()
        self._choices: dict[int, _Choice] = {}
        self._chosen_index: int | None = None  # the choice that is passed on: the first that came

    def feed(self, data: object) -> list[StreamEvent]:
        """Translate one chunk into at least one StreamEvent, since any frame is a sign of life."""
        if type(data) is not dict:
            return [Keepalive(None, "")]
        if (problem := _problem(data)) is not None:
            self._faulted = True
            return [StreamError(None, problem, "chat_chunk")]
        events: list[StreamEvent] = []
        self._model = text(data.get("model")) or self._model
        self._tier = text(data.get("service_tier"), 32) or self._tier
        counted = usage_of(data.get("usage"))
        self._usage = counted.usage or self._usage
        self._flags.update(counted.flags)
        if is_unfiltered(data):
            self._flags.add(UNFILTERED)
        choices = data.get("choices")
        if type(choices) is dict:
            choices = [choices]
        name = bounded_identifier(data.get("id")) if self._id is None else None
        if name or (type(choices) is list and not self._created_sent):
            self._created_sent = True
            self._id = name or self._id
            events.append(Created(None, self._id, self._model, "in_progress", self._tier))
        for choice in choices if type(choices) is list else ():
            if type(choice) is dict:
                events += self._choice(choice)
        main: StreamEvent = next((e for e in events if type(e) is Delta), Keepalive(None, "chat.completion.chunk"))
        return [*side_signals("", data, main), *(events or [main])]

    def done(self) -> list[StreamEvent]:
        """Return the terminal event for `[DONE]`, once.

        Return nothing before the first chunk, after an error chunk, or if neither content nor a finish reason had come:
        that is no proper end.
        """
        choice = self._answer_choice()
        if self._ended or not self._created_sent or self._faulted or (choice.empty and self._finish(choice) is None):
            return []
        self._ended = True
        status: TerminalStatus = "completed"
        reason: str | None = None
        problem: ProviderProblem | None = None
        word = self._finish(choice)
        finish = meaning(word) if word is not None else Finish.UNKNOWN
        if word is None:
            status, reason = "incomplete", NO_REASON
            self._flags.add(NO_REASON)
        elif finish not in (Finish.END, Finish.REFUSAL):
            status, reason, problem = terminal_for_finish(word)
            if finish is Finish.UNKNOWN:
                self._flags.add(UNKNOWN)
        return [
            Terminal(
                None,
                status,
                model=self._model,
                usage=self._usage,
                output=self._output(choice, status, refused=finish is Finish.REFUSAL),
                incomplete_reason=reason,
                problem=problem,
                service_tier=self._tier,
                carrier="chat_chunk",
                response_id=self._id,
                flags=tuple(sorted(self._flags | self._reading.flags)),
            )
        ]

    def end(self) -> list[StreamEvent]:
        """Return the terminal event if the stream ended without `[DONE]` but with a finish reason."""
        return self.done() if self._finish(self._answer_choice()) is not None else []

    def _answer_choice(self) -> _Choice:
        """Return the choice that is the answer: the chosen one, or if it has no content, one that has."""
        chosen = self._choices.get(self._chosen_index or 0) or _Choice()
        return next((c for c in self._choices.values() if not c.empty), chosen) if chosen.empty else chosen

    def _finish(self, choice: _Choice) -> str | None:
        """Return the finish reason: a block of any choice, else the choice's own, else another's.

        The last, because some servers number the last chunk differently and still mean this answer.
        """
        words = [c.finish for c in (choice, *self._choices.values()) if c.finish is not None]
        words.sort(key=lambda word: meaning(word) is not Finish.BLOCK)
        return words[0] if words else None

    def _choice(self, data: dict[str, Any]) -> list[StreamEvent]:
        if is_unfiltered(data):
            self._flags.add(UNFILTERED)
        number = non_negative(data.get("index"))
        if number is None:
            number = self._chosen_index or 0
        if self._chosen_index is None:
            self._chosen_index = number
        if number not in self._choices and len(self._choices) >= _MAX_CHOICES:
            return []
        choice = self._choices.setdefault(number, _Choice())
        text_read = _message(data.get("delta")) or ({"content": data.get("text")} if "text" in data else {})
        if not text_read:  # a complete message: use what the deltas did not have
            text_read = _message(data.get("message"))
            text_read = text_read if choice.empty else _remainder(choice, text_read)
        events = self._deltas(choice, text_read)
        rows = mapping(data.get("logprobs")).get("content")
        choice.logprobs += [row for row in rows if type(row) is dict] if type(rows) is list else []
        word = finish_word(data.get("finish_reason"))
        if word is not None and not (choice.finish is not None and meaning(choice.finish) is Finish.BLOCK):
            choice.finish = word  # a later finish reason does not replace a block
        return events if number == self._chosen_index else []

    def _deltas(self, choice: _Choice, delta: dict[str, Any]) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        content = delta.get("content")
        content = content if (text_read := text_or_number(content)) is None else text_read
        if type(content) is str:
            if content:
                choice.text.append(content)
                events.append(Delta(None, content))
        elif content is not None:
            for part in self._reading.parts(content):
                events += _part_deltas(choice, part)
        if piece := text(delta.get("refusal"), _UNLIMITED):
            choice.refusal.append(piece)
            events.append(Delta(None, piece, "refusal"))
        thoughts = (text(delta.get(name), _UNLIMITED) for name in _REASONING_KEYS)
        events += [Delta(None, piece, "other") for piece in thoughts if piece]
        calls = delta.get("tool_calls")
        calls = [calls] if type(calls) is dict else list(calls) if type(calls) is list else []
        if type(delta.get("function_call")) is dict:
            calls.append({"index": 0, "function": delta["function_call"]})
        for position, call in enumerate(calls):
            if type(call) is dict:
                events.append(Delta(None, choice.calls.add(call, position, len(calls)) or NOT_TEXT, "other"))
        return events

    def _output(self, choice: _Choice, status: str, *, refused: bool) -> tuple[dict[str, Any], ...]:
        """Return the answer as Responses output items, so that it has one shape in every mode."""
        tail = (self._id or "").removeprefix("chatcmpl-") or "0"
        text_read, refusal = join_surrogates("".join(choice.text)), join_surrogates("".join(choice.refusal))
        if refused and not refusal:
            text_read, refusal = "", text_read
        content: list[dict[str, Any]] = []
        if text_read:
            content.append({"type": "output_text", "text": text_read, "annotations": [], "logprobs": choice.logprobs})
        if refusal or refused:
            content.append({"type": "refusal", "refusal": refusal})
        items: list[dict[str, Any]] = []
        if content:
            items.append(
                {"id": f"msg_{tail}", "type": "message", "status": status, "role": "assistant", "content": content}
            )
        return (*items, *choice.calls.output(tail, status))


def _message(value: object) -> dict[str, Any]:
    """Return a message or a delta of one; some servers send the bare text."""
    text_read = text_or_number(value)
    return mapping(value) if text_read is None else {"content": text_read}


def _remainder(choice: _Choice, message: dict[str, Any]) -> dict[str, Any]:
    """Return the rest of a text whose beginning came in deltas; nothing if the two differ."""
    whole_text, begun = text(message.get("content"), _UNLIMITED) or "", "".join(choice.text)
    return {"content": whole_text[len(begun) :]} if begun and whole_text.startswith(begun) else {}


def _part_deltas(choice: _Choice, part: dict[str, Any]) -> list[StreamEvent]:
    """Return the delta of one content part; a part that is neither text nor refusal counts as reasoning or the like."""
    if part.get("type") == "refusal":
        choice.refusal.append(part["refusal"])
        return [Delta(None, part["refusal"], "refusal")] if part["refusal"] else []
    if part.get("type") == "output_text":
        choice.text.append(part["text"])
        return [Delta(None, part["text"])] if part["text"] else []
    return [Delta(None, NOT_TEXT, "other")]


def _problem(data: dict[str, Any]) -> ProviderProblem | None:
    """Return the error of a chunk, in an envelope or bare as some servers send it, or None."""
    error = data.get("error")
    envelope = type(error) in (dict, str, list) and ("choices" not in data or not is_empty_error(error))
    bare = "choices" not in data and "code" in data and "message" in data
    if envelope or bare or data.get("type") == "error" or is_error(data) or outcome_code(data):
        return problem_of(data)
    if moderation_blocked(data):
        return ProviderProblem("content_filter", None)
    choices = data.get("choices")
    for choice in choices if type(choices) is list else ():
        inner = choice.get("error") if type(choice) is dict else None
        if not is_empty_error(inner) and type(inner) in (dict, str, list):
            return problem_of(inner)  # OpenRouter: an error of a choice
    return None
