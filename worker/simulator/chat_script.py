"""Scripts a Chat Completions stream as a list of steps (wire.md T19): it has no check signals, only delay and endings.

Pure. It must not depend on sockets, tasks or the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from . import prose
from .buffering import buffering, with_duplicate_keys
from .error_forms import error_object, fields_beside, filter_down, moderation, planned_error
from .errors import ErrorShape, envelope
from .output_items import OutputItem, output_items
from .plan import Plan
from .request_body import ParsedRequest
from .wire import Ids, Json, Step, chat_frame, chat_usage, dumps

_CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_SHOWN = frozenset({"message", "refusal", *_CALLS})  # Chat has no place for the other items
_REASONS = {"max_output_tokens": "length", "max_messages": "length", "server_error": "content_filter"}


def chat_script(ask: ParsedRequest, plan: Plan, ids: Ids, project: str) -> Iterator[Step]:
    """Yield the steps of one chat completion; the step before `[DONE]` carries the whole non-stream answer."""
    return _Chat(ask, plan, ids, project).steps()


class _Chat:
    """Writes the steps of one completion."""

    def __init__(self, ask: ParsedRequest, plan: Plan, ids: Ids, project: str) -> None:
        self.ask, self.plan, self.ids = ask, plan, ids
        self.model = {
            "header": plan.served or ask.model,
            "conflict": plan.served or ask.model,
            "alias": plan.served or f"{ask.model}-2026-07-09",
        }.get(plan.route or "", ask.model)
        fails = plan.carrier is not None and plan.carrier != "incomplete"
        self.error: ErrorShape | None = planned_error(plan, ask, project) if fails else None
        self.thought = 0  # tokens of reasoning, which Chat counts and doesn't show

    def steps(self) -> Iterator[Step]:
        plan, ask = self.plan, self.ask
        if plan.stuck:
            yield Step(math.inf, b"")
        if plan.signal != "none" and plan.shape:  # where a gateway would put it; the provider's own chat has no signal
            signal = chat_frame({**self._base(), "choices": [], "safety_buffering": buffering(plan)})
            yield Step(0.0, with_duplicate_keys(signal, plan.shape))
        yield Step(plan.hold + plan.latency, b"")
        items = output_items(ask, plan, self.ids)
        self.thought = sum(len(item.tokens) for item in items if item.kind == "reasoning")
        items = [item for item in items if item.kind in _SHOWN]
        calls = [item for item in items if item.kind in _CALLS]
        sent, short = self.thought, False
        content = None if calls else ""
        yield self._chunk({"role": "assistant", "content": content, "refusal": None})
        for index, item in enumerate(items):
            left = None if plan.carrier is not None or ask.limit is None else max(0, ask.limit - sent)
            short = left is not None and len(item.tokens) > left
            tokens = item.tokens[:left] if short else item.tokens
            if item.kind in _CALLS:
                yield self._chunk({"tool_calls": [{"index": index, **self._call(item, "")}]})
            yield from self._deltas(tokens, item, index)
            sent += len(tokens)
            items[index] = replace(item, tokens=tokens)
            if short:
                items = items[: index + 1]
                break
        if self.error is not None:
            if plan.form == "moderation":
                yield Step(0.0, chat_frame({**self._base(), "choices": [], "moderation": moderation(blocked=True)}))
                return
            error_body: Json = {**fields_beside(self.error, plan.form), **self._error(self.error)}
            yield Step(0.0, chat_frame(error_body), terminal=True, error=error_body["error"])
            return
        reason = self._reason(short=short, called=bool(calls))
        whole = self._whole(items, reason, sent)
        if self.plan.unfiltered:  # as Azure was seen to: in a chunk of its own, under the singular name
            choice = {"index": 0, "delta": {}, "finish_reason": None, "content_filter_results": {}}
            choice["content_filter_result"] = filter_down()["content_filter_results"]
            yield Step(0.0, chat_frame({**self._base(), "choices": [choice]}))
        yield self._chunk({}, reason, whole=whole)
        if ask.include_usage:
            yield Step(0.0, chat_frame({**self._base(), "choices": [], "usage": whole["usage"]}))
        yield Step(0.0, b"data: [DONE]\n\n")

    def _error(self, error: ErrorShape) -> Json:
        form = self.plan.form
        return envelope(error) if form == "plain" else {"error": error_object(error, form)}

    def _deltas(self, tokens: list[str], item: OutputItem, number: int) -> Iterator[Step]:
        key = "refusal" if item.kind == "refusal" else "content"
        call = _CALLS.get(item.kind)
        head = dumps({**self._base(), "choices": []})[:-2]  # up to `"choices":[`
        head = f'data: {head}{{"index":0,"delta":'
        tail = ',"logprobs":null,"finish_reason":null}]'
        padding = prose.PADDING if self.ask.obfuscate else ()
        gap = 1.0 / self.plan.rate
        for index, token in enumerate(tokens):
            delta = f'{{"{key}":{dumps(token)}}}'
            if call is not None:
                kind, field = call
                delta = f'{{"tool_calls":[{{"index":{number},"{kind}":{{"{field}":{dumps(token)}}}}}]}}'
            end = f',"obfuscation":"{padding[index % len(padding)]}"}}\n\n' if padding else "}\n\n"
            yield Step(gap if index else 0.0, f"{head}{delta}{tail}{end}".encode(), tokens=1)

    def _reason(self, *, short: bool, called: bool) -> str:
        if short:
            return "length"
        if self.plan.carrier == "incomplete":
            return _REASONS.get(self.plan.code, self.plan.code)
        return "tool_calls" if called else "stop"

    def _chunk(self, delta: Json, reason: str | None = None, *, whole: Json | None = None) -> Step:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        body = {**self._base(), "choices": [choice]}
        return Step(0.0, chat_frame(body), terminal=whole is not None, snapshot=whole)

    def _whole(self, items: list[OutputItem], reason: str, sent: int) -> Json:
        message: Json = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
        for item in items:
            text = "".join(item.tokens)
            if item.kind in _CALLS:
                message |= {"content": None, "tool_calls": [*message.get("tool_calls", ()), self._call(item, text)]}
            elif item.kind == "refusal":
                message |= {"content": None, "refusal": text}
            else:
                message["content"] = text
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        choice |= filter_down() if self.plan.unfiltered else {}
        counted = chat_usage(self.ask.input_tokens, sent, self.thought)
        return {**self._base("chat.completion"), "choices": [choice], "usage": counted}

    @staticmethod
    def _call(item: OutputItem, text: str) -> dict[str, Any]:
        kind, field = _CALLS[item.kind]
        return {"id": item.body["call_id"], "type": kind, kind: {"name": item.body["name"], field: text}}

    def _base(self, kind: str = "chat.completion.chunk") -> Json:
        return {
            "id": self.ids.response.replace("resp_", "chatcmpl-", 1),
            "object": kind,
            "created": self.ids.created_at,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": self.ids.fingerprint,
        }
