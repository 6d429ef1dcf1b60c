"""The typed events of one response, numbered: a pure function of what was shown and of what came back.

0 created, 1 in_progress (once a run began), then the text that was shown while it ran, then what the end adds.
Text goes out in chunks of a fixed length by its offset, so live and replayed it is cut alike. Text that was withdrawn
(a block, a failure, an attempt that another one superseded) keeps its numbers in a replay and is empty.

A text that began live is one message item of our own naming, for its place among the provider's items is not known
yet; the others follow it. Without live text the items come as the provider gave them. The terminal event's `output` is
always the provider's, as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from api.openai_compat.response import ResponseSource
from api.schema.views import dumps
from api.web.problems import Problem
from worker.jobs.states import Status

Json = dict[str, Any]
CHUNK: Final = 32
"""Characters of one delta."""
_INPUTS: Final = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
_PARTS: Final = {"output_text": "text", "refusal": "refusal"}


def cut(text: str, least: int = 0) -> list[str]:
    """The text in chunks, the last one perhaps shorter; at least `least` of them, empty ones behind its end."""
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    return chunks + [""] * (least - len(chunks))


class EventSequence:
    """Tells the events in their order, each of them once; gives those numbered above `after` as frames.

    Calls come in one order whoever makes them, so all scripts of a job number alike.
    """

    def __init__(self, tail: str, after: int = -1) -> None:
        self._tail, self._after = tail, after
        self._number, self._items = 0, 0
        self._open: int | None = None  # the attempt whose text is being told
        self._out: list[bytes] = []
        self.begun = False
        self.told: dict[int, int] = {}
        """Attempt -> chunks told."""

    def take(self) -> bytes:
        """The frames since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def create(self, job: ResponseSource) -> None:
        """The response exists."""
        self._say("response.created", {"response": job.born()})

    def begin(self, job: ResponseSource) -> None:
        """A first run began; said once."""
        if not self.begun:
            self.begun = True
            self._say("response.in_progress", {"response": job.begun()})

    def show(self, attempt: int, chunks: Sequence[str]) -> None:
        """More of an attempt's text; that of an attempt before it ends where it stands."""
        if self._open != attempt:
            self._abandon()
            self._open, self.told[attempt] = attempt, 0
            item = _message(self._name, "in_progress", [])
            self._say("response.output_item.added", {"output_index": self._items, "item": item})
            self._say("response.content_part.added", {**self._at(0), "part": _text("")})
        at = self._at(0)
        for chunk in chunks:
            self._say("response.output_text.delta", {**at, "delta": chunk, "logprobs": []})
        self.told[attempt] += len(chunks)

    def end(self, job: ResponseSource, shown: dict[int, int]) -> None:
        """The job is settled, and this much had been shown of its attempts."""
        record, newest = job.job, max(shown, default=0)
        live = newest > 0 and newest == record.winner
        if record.started_at is not None:
            self.begin(job)
        for attempt, count in shown.items():
            chunks = cut(job.text if live and attempt == newest else "", count)[self.told.get(attempt, 0) :]
            if chunks:
                self.show(attempt, chunks)
        last = job.now()
        if record.status is Status.COMPLETED:
            self._complete(job, live=live)
            kind = "response.completed" if last["status"] == "completed" else "response.incomplete"
        else:
            kind = "response.failed"
            last["error"] = last["error"] or {"code": "cancelled", "message": "The response was cancelled on request."}
        self._say(kind, {"response": last})

    def fail(self, problem: Problem) -> None:
        """What is left can't be told."""
        self._say("error", {"code": problem.code, "message": problem.detail, "param": None})

    def _complete(self, job: ResponseSource, *, live: bool) -> None:
        if not live:
            self._abandon()
        else:
            part = _text(job.text)
            self._say("response.output_text.done", {**self._at(0), "text": job.text, "logprobs": []})
            self._say("response.content_part.done", {**self._at(0), "part": part})
            status = next((i["status"] for i in job.output if i.get("type") == "message"), "completed")
            self._close(_message(self._name, status, [part]))
        for item in job.output:
            rest = _without_text(item) if live else item
            if rest is not None:
                self._whole(rest)

    def _whole(self, item: Json) -> None:
        """An item of the provider, told from its beginning to its end."""
        kind, at = item.get("type"), {"item_id": item["id"], "output_index": self._items}
        empty = {**item, **({"status": "in_progress"} if "status" in item else {})}
        if kind == "message":
            empty["content"] = []
        elif kind in _INPUTS:
            empty[_INPUTS[kind][0]] = ""
        self._say("response.output_item.added", {"output_index": self._items, "item": empty})
        if kind == "message":
            for index, part in enumerate(item["content"]):
                self._part({**at, "content_index": index}, part)
        elif kind in _INPUTS:
            name, event = _INPUTS[kind]
            whole = str(item.get(name) or "")
            for chunk in cut(whole):
                self._say(f"{event}.delta", {**at, "delta": chunk})
            named = {"name": item.get("name")} if kind == "function_call" else {}
            self._say(f"{event}.done", {**at, name: whole, **named})
        self._close(item)

    def _part(self, at: Json, part: Json) -> None:
        kind = str(part.get("type"))
        name = _PARTS.get(kind)
        self._say("response.content_part.added", {**at, "part": part if name is None else {**part, name: ""}})
        if name is not None:
            whole = str(part.get(name) or "")
            more: Json = {"logprobs": []} if kind == "output_text" else {}
            for chunk in cut(whole):
                self._say(f"response.{kind}.delta", {**at, "delta": chunk, **more})
            self._say(f"response.{kind}.done", {**at, name: whole, **more})
        self._say("response.content_part.done", {**at, "part": part})

    def _abandon(self) -> None:
        """The text that is open is not the answer: its item ends without it."""
        if self._open is not None:
            self._close(_message(self._name, "incomplete", []))

    def _close(self, item: Json) -> None:
        self._say("response.output_item.done", {"output_index": self._items, "item": item})
        self._items += 1
        self._open = None

    @property
    def _name(self) -> str:
        return f"msg_{self._tail}_live{self._open}"

    def _at(self, index: int) -> Json:
        return {"item_id": self._name, "output_index": self._items, "content_index": index}

    def _say(self, kind: str, body: Json) -> None:
        if self._number > self._after:
            data = dumps({"type": kind, "sequence_number": self._number, **body})
            self._out.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), data))
        self._number += 1


def _message(name: str, status: str, content: Iterable[Json]) -> Json:
    return {"id": name, "type": "message", "role": "assistant", "status": status, "content": list(content)}


def _text(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _without_text(item: Json) -> Json | None:
    """What is left to tell of an item whose text was told live."""
    if item.get("type") != "message":
        return item
    rest = [part for part in item["content"] if part.get("type") != "output_text"]
    return {**item, "content": rest} if rest else None
