"""The numbered, typed events of one response: a pure function of the text that was shown live and of the output.

0 created, 1 in_progress (once a run has begun), then the text that was shown live, then what the end adds. What was
told live of safety checks stands where it was told, as further snapshots in progress. Text is split into chunks of a
fixed length by its offset, so that a replay splits it as the live stream did. Text that was withdrawn (a block, a
failure, an attempt that was superseded) keeps its numbers in a replay, and is empty.

Text that was shown live is one message item with an id of our own, because its place among the provider's items is not
known yet; the other items follow it. Without live text the items are sent as the provider gave them. The `output` of
the terminal event is always the provider's, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from api.openai_compat.check_states import CheckState, decode_state, in_order
from api.openai_compat.response import ResponseSource
from api.schema.views import dumps
from api.web.problems import Problem
from worker.jobs.states import Status
from worker.store.jobs.streamed_chunks import Streamed, StreamedCheck

Json = dict[str, Any]
CHUNK: Final = 32
"""Characters of a delta."""
_MAX_AT_ONCE: Final = 500
"""Events that are made before others are served: a long output has 30,000."""
_INPUTS: Final = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
_PARTS: Final = {"output_text": "text", "refusal": "refusal"}


def split(text: str, min_count: int = 0) -> list[str]:
    """Split the text into chunks, of which the last may be shorter; add empty ones up to `min_count`."""
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    return chunks + [""] * (min_count - len(chunks))


class EventSequence:
    """Emits the events in order, each once, as frames; those up to number `after` are counted only.

    The order of the calls depends on the job alone, so that all sequences of a job have the same numbers. A method that
    may emit many is an iterator, which stops every now and then, so that the caller can let others be served.
    """

    def __init__(self, tail: str, after: int = -1) -> None:
        self._tail, self._after = tail, after
        self._number, self._items = 0, 0
        self._open: int | None = None  # the attempt whose text item is open
        self._out: list[bytes] = []
        self._started: Json = {}
        self.begun = False
        self.ended = False
        """Whether nothing follows, whatever the job does; only the end of a job ends these events."""
        self.gave_answer = False
        """Whether the terminal event, which has the whole output, was emitted."""
        self.emitted: dict[int, int] = {}
        """Attempt -> number of emitted chunks."""
        self.noted = 0
        """How many states of safety checks were emitted."""

    def take(self) -> bytes:
        """Return the frames since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def create(self, job: ResponseSource) -> None:
        """Emit that the response was created."""
        self._emit("response.created", {"response": job.created()})

    def begin(self, job: ResponseSource) -> None:
        """Emit that a first run has begun; once."""
        if not self.begun:
            self.begun, self._started = True, job.started()
            self._emit("response.in_progress", {"response": job.started()})

    def show(self, attempt: int, chunks: Sequence[str]) -> Iterator[None]:
        """Emit more of an attempt's text; close the text of an earlier attempt as incomplete."""
        if self._open != attempt:
            self._abandon()
            self._open, self.emitted[attempt] = attempt, 0
            item = _message(self._name, "in_progress", [])
            self._emit("response.output_item.added", {"output_index": self._items, "item": item})
            self._emit("response.content_part.added", {**self._location(0), "part": _text("")})
        at = self._location(0)
        yield from self._emit_chunks("response.output_text.delta", chunks, {**at, "logprobs": []})
        self.emitted[attempt] += len(chunks)

    def note_check(self, state: CheckState) -> None:
        """Emit what is known of safety checks, as a snapshot of a response in progress."""
        self.noted += 1
        snapshot = {**self._started, "vigil": {**self._started["vigil"], "safety": state.safety}}
        notice = {"safety_buffering": state.notice} if state.notice is not None else {}
        self._emit("response.in_progress", {"response": snapshot, **notice})

    def end(self, job: ResponseSource, streamed: Streamed) -> Iterator[None]:
        """Emit the end of a settled job; `streamed`: what had been shown and told live."""
        record, newest = job.job, max(streamed.chunks, default=0)
        live = newest > 0 and newest == record.winner
        if record.started_at is not None:
            self.begin(job)
        for step in in_order(streamed, self.noted):
            if isinstance(step, StreamedCheck):
                self.note_check(decode_state(step))
                continue
            chunks = split(job.text if live and step.attempt == newest else "", streamed.chunks[step.attempt])
            if more := chunks[self.emitted.get(step.attempt, 0) : step.upto]:
                yield from self.show(step.attempt, more)
        if live and (tail := split(job.text)[self.emitted.get(newest, 0) :]):
            yield from self.show(newest, tail)
        last = job.current()
        if record.status is Status.COMPLETED:
            yield from self._complete(job, live=live)
            kind = "response.completed" if last["status"] == "completed" else "response.incomplete"
        else:
            kind = "response.failed"
            last["error"] = last["error"] or {"code": "cancelled", "message": "The response was cancelled on request."}
        self.gave_answer = self._number > self._after
        self._emit(kind, {"response": last})

    def fail(self, problem: Problem) -> None:
        """Emit an error in place of the remaining events."""
        self._emit("error", {"code": problem.code, "message": problem.detail, "param": None})

    def stop(self) -> bool:
        """Emit nothing: a further number would differ from those of a replay. A client resumes after the last one."""
        return False

    def _complete(self, job: ResponseSource, *, live: bool) -> Iterator[None]:
        if not live:
            self._abandon()
        else:
            part = _text(job.text)
            self._emit("response.output_text.done", {**self._location(0), "text": job.text, "logprobs": []})
            self._emit("response.content_part.done", {**self._location(0), "part": part})
            status = next((i["status"] for i in job.output if i.get("type") == "message"), "completed")
            self._close(_message(self._name, status, [part]))
        for item in job.output:
            remaining = _without_text(item) if live else item
            if remaining is not None:
                yield from self._emit_item(remaining)

    def _emit_item(self, item: Json) -> Iterator[None]:
        """Emit all events of an item of the provider."""
        kind, at = item.get("type"), {"item_id": item["id"], "output_index": self._items}
        empty = {**item, **({"status": "in_progress"} if "status" in item else {})}
        if kind == "message":
            empty["content"] = []
        elif kind in _INPUTS:
            empty[_INPUTS[kind][0]] = ""
        elif kind == "reasoning":
            empty |= {"summary": [], **({"content": []} if item.get("content") else {})}
        self._emit("response.output_item.added", {"output_index": self._items, "item": empty})
        if kind == "message":
            for index, part in enumerate(item["content"]):
                yield from self._emit_part({**at, "content_index": index}, part)
        elif kind in _INPUTS:
            name, event = _INPUTS[kind]
            value = str(item.get(name) or "")
            yield from self._emit_chunks(f"{event}.delta", split(value), at)
            named = {"name": item.get("name")} if kind == "function_call" else {}
            self._emit(f"{event}.done", {**at, name: value, **named})
        elif kind == "reasoning":
            yield from self._emit_reasoning(at, item)
        self._close(item)
        yield  # there may be many items

    def _emit_reasoning(self, at: Json, item: Json) -> Iterator[None]:
        """Emit the summary of a reasoning item, and its text where a server shows it; clients read only the events."""
        for index, part in enumerate(_text_parts(item.get("summary"))):
            here = {**at, "summary_index": index}
            self._emit("response.reasoning_summary_part.added", {**here, "part": {**part, "text": ""}})
            yield from self._emit_chunks("response.reasoning_summary_text.delta", split(part["text"]), here)
            self._emit("response.reasoning_summary_text.done", {**here, "text": part["text"]})
            self._emit("response.reasoning_summary_part.done", {**here, "part": part})
        for index, part in enumerate(_text_parts(item.get("content"))):
            here = {**at, "content_index": index}
            yield from self._emit_chunks("response.reasoning_text.delta", split(part["text"]), here)
            self._emit("response.reasoning_text.done", {**here, "text": part["text"]})

    def _emit_part(self, at: Json, part: Json) -> Iterator[None]:
        kind = str(part.get("type"))
        name = _PARTS.get(kind)
        self._emit("response.content_part.added", {**at, "part": part if name is None else {**part, name: ""}})
        if name is not None:
            value = str(part.get(name) or "")
            more: Json = {"logprobs": []} if kind == "output_text" else {}
            yield from self._emit_chunks(f"response.{kind}.delta", split(value), {**at, **more})
            self._emit(f"response.{kind}.done", {**at, name: value, **more})
        self._emit("response.content_part.done", {**at, "part": part})

    def _emit_chunks(self, kind: str, chunks: Sequence[str], body: Json) -> Iterator[None]:
        for chunk in chunks:
            self._emit(kind, {**body, "delta": chunk})
            if self._number % _MAX_AT_ONCE == 0:
                yield

    def _abandon(self) -> None:
        """Close the open text item as incomplete: its text is not the output."""
        if self._open is not None:
            self._close(_message(self._name, "incomplete", []))

    def _close(self, item: Json) -> None:
        self._emit("response.output_item.done", {"output_index": self._items, "item": item})
        self._items += 1
        self._open = None

    @property
    def _name(self) -> str:
        return f"msg_{self._tail}_live{self._open}"

    def _location(self, index: int) -> Json:
        return {"item_id": self._name, "output_index": self._items, "content_index": index}

    def _emit(self, kind: str, body: Json) -> None:
        if self._number > self._after:
            data = dumps({"type": kind, "sequence_number": self._number, **body})
            self._out.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), data))
        self._number += 1


def _message(name: str, status: str, content: Iterable[Json]) -> Json:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": list(content)}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _text_parts(parts: Any) -> list[Json]:
    """Return the parts that have a text; the provider's item may be of any shape."""
    rows = parts if isinstance(parts, list) else []
    return [part for part in rows if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _without_text(item: Json) -> Json | None:
    """Return the item without its text, which was shown live; None if nothing is left."""
    if item.get("type") != "message":
        return item
    parts = [part for part in item["content"] if part.get("type") != "output_text"]
    return {**item, "content": parts} if parts else None
