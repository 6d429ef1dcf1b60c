"""Scripts a Responses stream as a list of steps: which frames, in which order, after which wait (wire.md T01-T18).

Pure: same arguments, same steps. It must not depend on sockets, tasks, the clock or how often a plan ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from . import prose
from .buffering import buffering, with_duplicate_keys
from .error_forms import error_object, fields_beside, filter_down, moderation, planned_error
from .errors import MISALIGNMENT, ErrorShape
from .output_items import OutputItem, output_items
from .plan import Plan
from .request_body import ParsedRequest
from .wire import Ids, Json, Step, dumps, frame, snapshot, text_part, usage

GENERIC = {"code": "server_error", "message": "simulated generic"}
FOREVER = math.inf
_ARGUMENTS = {
    "function_call": ("response.function_call_arguments", "arguments"),
    "custom_tool_call": ("response.custom_tool_call_input", "input"),
}


def responses_script(ask: ParsedRequest, plan: Plan, ids: Ids, project: str) -> Iterator[Step]:
    """Yield the steps of one response; waits are in unscaled seconds, and a wait of infinity never ends."""
    return _Script(ask, plan, ids, project).steps()


class _Script:
    """Writes the events: holds the next sequence number and what was said so far."""

    def __init__(self, ask: ParsedRequest, plan: Plan, ids: Ids, project: str) -> None:
        self.ask, self.plan, self.ids = ask, plan, ids
        self.seq = 0
        self.sent = 0  # output tokens so far
        self.thought = 0  # those of them that are reasoning
        self.output: list[Json] = []
        dated = f"{ask.model}-2026-07-09"
        self.model = (plan.served or dated) if plan.route == "alias" else ask.model
        self.error: ErrorShape | None = (
            planned_error(plan, ask, project) if plan.carrier not in {None, "incomplete"} else None
        )

    def steps(self) -> Iterator[Step]:
        yield from self._opening()
        if self.plan.stuck:
            yield Step(FOREVER, b"")
        yield from self._start()
        if self.plan.signal != "mid":  # its hold comes in the middle of the output
            yield from self._silence(self.plan.hold)
        fails = self.plan.carrier is not None
        items, short = output_items(self.ask, self.plan, self.ids), False
        for index, item in enumerate(items):
            last = index == len(items) - 1
            left = None if fails or self.ask.limit is None else self.ask.limit - self.sent
            short = left is not None and len(item.tokens) > left
            yield from self._item(index, item, whole=not (short or (fails and last)), upto=left if short else None)
            if short:
                break
        yield from self._ending(short=short)

    # -- before output

    def _opening(self) -> Iterator[Step]:
        status = "queued" if self.ask.background else "in_progress"
        snap = self._snapshot(status=status)
        if self.plan.route == "header":
            snap["headers"] = {"OpenAI-Model": [self.plan.served]}
        yield self._event("response.created", {"response": snap}, snap=snap)
        if self.ask.background:
            yield self._event("response.queued", {"response": snap})

    def _start(self) -> Iterator[Step]:
        plan, queue = self.plan, self.plan.queue if self.ask.background else 0.0
        if plan.flagged:
            metadata = {"openai_verification_recommendation": ["trusted_access_for_cyber"]}
            yield self._event("response.metadata", self._metadata(metadata), wait=queue)
            queue = 0.0
        if plan.signal == "metadata":
            yield self._signal(wait=queue)
            queue = 0.0
        snap = self._snapshot()
        body: Json = {"response": snap}
        if plan.signal == "top":
            body["safety_buffering"] = self._check()
        if plan.signal == "snapshot":
            snap["safety_buffering"] = self._check()
        yield self._event("response.in_progress", body, wait=queue, snap=snap)
        if plan.signal == "typed":
            yield self._event("response.safety_buffering", {"safety_buffering": self._check()})
        if plan.noise:
            yield Step(0.0, b": gateway says hello\n\n")
            yield self._event("response.something_new", {"payload": {"a": [1, 2]}})
            untyped = dumps({"sequence_number": self.seq, "note": "no type"})
            yield Step(0.0, f"data: {untyped}\n\n".encode(), seq=self._next())

    def _silence(self, seconds: float) -> Iterator[Step]:
        """Yield the hold: nothing, keepalives and repeated announcements, in order of their time."""
        plan, marks = self.plan, []
        if plan.keepalive > 0:
            count = min(math.ceil(seconds / plan.keepalive) - 1, 10_000)
            marks += [(plan.keepalive * (i + 1), "keepalive") for i in range(count)]
        if plan.signal != "none":
            marks += [(seconds * (i + 1) / (plan.repeats + 1), "signal") for i in range(plan.repeats)]
        now = 0.0
        for at, what in sorted(marks):
            wait, now = at - now, at
            if what == "keepalive":
                yield self._event("keepalive", {}, wait=wait)
            else:
                yield self._signal(wait=wait, repeat=True)
        yield Step(seconds - now, b"")

    # -- output

    def _item(self, index: int, item: OutputItem, *, whole: bool, upto: int | None) -> Iterator[Step]:
        """Yield one output item; a part that isn't whole ends after its last delta."""
        begun = {"output_index": index, "item": item.begun()}
        yield self._event("response.output_item.added", begun, wait=0.0 if index else self.plan.latency)
        finished = item.finished("completed" if whole else "incomplete", upto)
        at: Json = {"item_id": item.id, "output_index": index}
        tokens = item.tokens[:upto]
        match item.kind:
            case "message" | "refusal":
                yield from self._part({**at, "content_index": 0}, item.kind, tokens, finished["content"][0], whole)
            case "function_call" | "custom_tool_call":
                kind, field = _ARGUMENTS[item.kind]
                yield from self._deltas(f"{kind}.delta", at, tokens)
                name = {"name": finished["name"]} if item.kind == "function_call" else {}
                if whole:
                    yield self._event(f"{kind}.done", {**at, **name, field: finished[field]})
            case "reasoning":
                yield from self._summary({**at, "summary_index": 0}, tokens, finished["summary"][0], whole)
            case "shell_call":
                command: Json = {"output_index": index, "command_index": 0}
                yield self._event("response.shell_call_command.added", {**command, "command": ""})
                yield from self._deltas("response.shell_call_command.delta", command, tokens)
                if whole:
                    yield self._event("response.shell_call_command.done", {**command, "command": "".join(tokens)})
            case _:
                pass
        self.output = [*self.output, finished]
        if whole:
            yield self._event("response.output_item.done", {"output_index": index, "item": finished})

    def _part(self, at: Json, kind: str, tokens: list[str], part: Json, whole: bool) -> Iterator[Step]:
        refusal = kind == "refusal"
        name = "response.refusal" if refusal else "response.output_text"
        empty: Json = {"type": "refusal", "refusal": ""} if refusal else text_part("")
        yield self._event("response.content_part.added", {**at, "part": empty})
        yield from self._deltas(f"{name}.delta", at, tokens, logprobs=not refusal)
        if whole:
            content: Json = {"refusal": part["refusal"]} if refusal else {"text": part["text"], "logprobs": []}
            yield self._event(f"{name}.done", {**at, **content})
            yield self._event("response.content_part.done", {**at, "part": part})

    def _summary(self, at: Json, tokens: list[str], part: Json, whole: bool) -> Iterator[Step]:
        self.thought += len(tokens)
        yield self._event("response.reasoning_summary_part.added", {**at, "part": {"type": "summary_text", "text": ""}})
        yield from self._deltas("response.reasoning_summary_text.delta", at, tokens)
        if whole:
            yield self._event("response.reasoning_summary_text.done", {**at, "text": part["text"]})
            yield self._event("response.reasoning_summary_part.done", {**at, "part": part})

    def _deltas(self, kind: str, at: Json, tokens: list[str], *, logprobs: bool = False) -> Iterator[Step]:
        """Yield one frame per token; the frame's constant text is written once."""
        head = f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":'
        middle = f",{dumps(at)[1:-1]},"
        middle += '"delta":'
        tail = ',"logprobs":[]' if logprobs else ""
        padding = prose.PADDING if self.ask.obfuscate else ()
        gap, step = 1.0 / self.plan.rate, len(tokens) // 2
        for index, token in enumerate(tokens):
            wait = gap if index else 0.0
            if index == step and (self.plan.signal == "mid" or self.plan.again):
                yield self._signal()
                yield from self._silence(self.plan.again or self.plan.hold)
            if self.plan.gap and index == 1:
                self.seq += 3
            seq = self._next()
            end = f',"obfuscation":"{padding[seq % len(padding)]}"}}\n\n' if padding else "}\n\n"
            riding = ""
            if index == 0 and self.plan.repeats and self.plan.signal == "top":
                riding = f',"safety_buffering":{dumps(self._check(repeat=True))}'
            self.sent += 1
            data = f"{head}{seq}{middle}{dumps(token)}{tail}{riding}{end}"
            yield Step(wait, data.encode(), seq, 1)

    # -- the end

    def _ending(self, *, short: bool) -> Iterator[Step]:
        plan, error = self.plan, self.error
        if short or plan.carrier == "incomplete":
            reason = "max_output_tokens" if short else plan.code if plan.code != "server_error" else "content_filter"
            snap = self._snapshot(
                status="incomplete", incomplete_details={"reason": reason}, output=self.output, usage=self._usage()
            )
            yield self._event("response.incomplete", {"response": snap}, snap=snap, terminal=True)
        elif error is None:
            yield from self._completed()
        elif plan.carrier == "response_failed":
            snap = self._failed(error)
            yield self._event("response.failed", {"response": snap}, snap=snap, terminal=True)
        else:
            inner = error_object(error, plan.form)
            if plan.carrier in {"late_error", "nameless"}:
                yield from self._nameless(inner, named=plan.carrier == "late_error")
                return
            known = self._failed(error)  # a GET tells the precise code; only the stream has the generic one
            if plan.carrier == "flat_error":
                flat = {"code": error.code, "message": error.message, "param": error.param}
                yield self._event("error", flat, snap=known, terminal=True, error=inner)
                return
            beside = fields_beside(error, plan.form)
            yield self._event("error", {**beside, "error": inner}, snap=known, error=inner)
            yield self._event("response.failed", {"response": {**known, "error": GENERIC}}, terminal=True)

    def _nameless(self, inner: Json, *, named: bool) -> Iterator[Step]:
        """Yield a failure that says nothing; `named`: an error event with the code follows it."""
        snap = self._snapshot(status="failed", error=None)
        yield self._event("response.failed", {"response": snap}, snap=snap, terminal=not named)
        if named:
            yield self._event("error", {"error": inner}, terminal=True, error=inner)

    def _completed(self) -> Iterator[Step]:
        plan = self.plan
        more: Json = {}
        if plan.route in {"header", "conflict"}:
            more["model"] = plan.served
        if plan.route == "header":
            more["service_tier"] = "flex"
        if plan.form == "moderation":
            more["moderation"] = moderation(blocked=False)
        if plan.unfiltered:
            more["content_filters"] = [{"blocked": False, "source_type": "completion", **filter_down()}]
        if plan.removed:
            rows = [{"type": "reasoning", "action": "removed", "reason": "model_mismatch"}] * plan.removed
            more["input_transformations"] = [{"id": f"rs_sim{at}", **row} for at, row in enumerate(rows)]
        snap = self._snapshot(status="completed", output=self.output, usage=self._usage(), **more)
        body: Json = {"response": snap}
        if plan.repeats and plan.signal == "top":
            body["safety_buffering"] = self._check(repeat=True)
        yield self._event("response.completed", body, snap=snap, terminal=True)
        if plan.twice:
            failed = {**snap, "status": "failed", "error": GENERIC}
            yield self._event("response.failed", {"response": failed})
        if plan.trailing:
            yield self._event("response.rate_limits.updated", {"rate_limits": []})
        if plan.trailing > 1:
            yield self._event("keepalive", {})
            yield self._event("response.something_new", {"payload": None})

    def _failed(self, error: ErrorShape) -> Json:
        if self.plan.form == "moderation":
            return self._snapshot(status="failed", error=None, moderation=moderation(blocked=True), usage=self._usage())
        error_body: Json = {"code": error.code, "message": error.message}
        if error.param and self.plan.param:
            error_body["param"] = error.param
        if error.code in {"rate_limit_exceeded", "slow_down"} and self.plan.retry_after:
            error_body["message"] = f"{error.message}: please try again in {self.plan.retry_after:g}s."
        if error.code == "misalignment_policy_violation":
            error_body["misalignment"] = MISALIGNMENT
        counted = self._usage() if error.policy or self.sent else None
        return self._snapshot(status="failed", error=error_body, usage=counted)

    # -- small parts

    def _next(self) -> int:
        self.seq += 1
        return self.seq - 1

    def _event(
        self,
        kind: str,
        body: Json,
        *,
        wait: float = 0.0,
        snap: Json | None = None,
        terminal: bool = False,
        error: Json | None = None,
    ) -> Step:
        seq = self._next()
        return Step(wait, with_duplicate_keys(frame(kind, seq, body), self.plan.shape), seq, 0, terminal, snap, error)

    def _snapshot(self, **changes: Any) -> Json:
        return {**snapshot(self.ask, self.ids, self.model), **changes}

    def _usage(self) -> Json:
        return usage(self.ask.input_tokens, self.sent, self.thought, self.plan.cache_write)

    def _check(self, *, repeat: bool = False) -> Any:
        return buffering(self.plan, repeat=repeat)

    def _signal(self, *, wait: float = 0.0, repeat: bool = False) -> Step:
        fields = self._check(repeat=repeat)
        metadata = {"type": "safety_buffering", **(fields if isinstance(fields, dict) else {})}
        return self._event("response.metadata", self._metadata(metadata), wait=wait)

    def _metadata(self, metadata: Json) -> Json:
        return {"response_id": self.ids.response, "metadata": metadata}
