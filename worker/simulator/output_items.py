"""Decides the output items of one response: which, in which order, and the tokens that are streamed of each.

Pure. The frames around them are written by script.py (Responses) and chat_script.py (Chat).
"""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from . import prose
from .plan import Plan
from .request_body import ParsedRequest
from .schema_sample import sample
from .tools import ToolUse, tool_uses
from .wire import Ids, Json, dumps, text_part

_THOUGHTS: Final = ("**Looking ", "at ", "the ", "request** ", "It ", "needs ", "one ", "step.")
_SEALED: Final = base64.urlsafe_b64encode(b"simulated reasoning: opaque to every client").decode()
_LOOKUP: Final[Json] = {
    "type": "function",
    "name": "simulated_lookup",
    "description": "A tool that the model found.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    "strict": False,
}
_TEXT_FIELDS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
_KINDS: Final = {
    "text": "text",
    "input_text": "text",
    "image_url": "image",
    "input_image": "image",
    "file": "file",
    "input_file": "file",
    "input_audio": "sound",
}


@dataclass(frozen=True, slots=True)
class OutputItem:
    """One item: `kind` is its type (or `refusal`), `body` all but its text, `tokens` the text as it is streamed."""

    kind: str
    id: str
    body: Json
    tokens: list[str]

    def finished(self, status: str, upto: int | None = None) -> Json:
        """Return the item once `upto` of its tokens (None: all) were sent."""
        text = "".join(self.tokens[:upto])
        if self.kind in ("message", "refusal"):
            part = text_part(text) if self.kind == "message" else {"type": "refusal", "refusal": text}
            return {**self.body, "status": status, "content": [part]}
        if self.kind in _TEXT_FIELDS:
            return {**self.body, "status": status, _TEXT_FIELDS[self.kind]: text}
        if self.kind == "reasoning":
            return {**self.body, "summary": [{"type": "summary_text", "text": text}], "encrypted_content": _SEALED}
        if self.kind == "shell_call":
            return {**self.body, "status": status, "action": _commands([text])}
        return {**self.body, **({"status": status} if "status" in self.body else {})}

    def begun(self) -> Json:
        """Return the item before its first token."""
        if self.kind in ("message", "refusal"):
            return {**self.body, "status": "in_progress", "content": []}
        if self.kind in _TEXT_FIELDS:
            return {**self.body, "status": "in_progress", _TEXT_FIELDS[self.kind]: ""}
        if self.kind == "reasoning":
            return {**self.body, "summary": [], "encrypted_content": None}
        if self.kind == "shell_call":
            return {**self.body, "status": "in_progress", "action": _commands([])}
        return {**self.body, **({"status": "in_progress"} if "status" in self.body else {})}


def output_items(ask: ParsedRequest, plan: Plan, ids: Ids) -> list[OutputItem]:
    """Return the items of a response; one that fails has `plan.partial` tokens of its last item, or no item."""
    partial = plan.partial if plan.carrier is not None else None
    if partial == 0:
        return []
    out: list[OutputItem] = []
    if plan.reasoning:
        out.append(OutputItem("reasoning", ids.named("rs"), {"id": ids.named("rs"), "type": "reasoning"}, [*_THOUGHTS]))
    if plan.adds_tools:
        name = ids.named("at")
        added: Json = {"id": name, "type": "additional_tools", "role": "developer", "tools": [_LOOKUP]}
        out.append(OutputItem("additional_tools", name, added, []))
    uses = [] if plan.refusal or plan.text is not None else tool_uses(ask, plan)
    for index, use in enumerate(uses):
        out.append(_call(use, ids, index, partial))
    if not uses and (tokens := _text(ask, plan, partial)):
        body = {"id": ids.item, "type": "message", "status": "completed", "role": "assistant"}
        out.append(OutputItem("refusal" if plan.refusal else "message", ids.item, body, tokens))
    return out


def _call(use: ToolUse, ids: Ids, index: int, partial: int | None) -> OutputItem:
    prefix = {"function_call": "fc", "custom_tool_call": "ctc", "local_shell_call": "lsh", "shell_call": "sh"}
    name = ids.named(prefix.get(use.kind, "apc"), index)
    body: Json = {"id": name, "type": use.kind, "status": "completed", "call_id": ids.call_named(index)}
    if use.name:
        body["name"] = use.name
    if use.namespace is not None:
        body["namespace"] = use.namespace
    return OutputItem(use.kind, name, {**body, **(use.body or {})}, prose.pieces(use.text)[:partial])


def _text(ask: ParsedRequest, plan: Plan, partial: int | None) -> list[str]:
    if plan.refusal:
        return list(prose.REFUSAL)
    if plan.text is not None:
        return prose.pieces(plan.text, 24)
    if plan.counts_inputs:
        return prose.pieces(_counted(ask))
    schema = ask.json_schema()
    if schema is not None or plan.json:
        return prose.pieces(dumps(sample(schema or {})))[:partial]
    return prose.words(len(ask.text), plan.tokens if partial is None else partial)


def _counted(ask: ParsedRequest) -> str:
    """Return how many parts of each kind the last user message has; never a part of them."""
    message = next((item for item in reversed(ask.items) if item.get("role") == "user"), None)
    content: Any = message.get("content") if message is not None else [{"type": "input_text"}]
    parts = content if isinstance(content, list) else [{"type": "input_text"}]
    found = Counter(_KINDS.get(str(part.get("type")), "other part") for part in parts if isinstance(part, dict))
    rows = [f"{count} {kind}{'' if count == 1 else 's'}" for kind, count in sorted(found.items())]
    return f"The message has {', '.join(rows) or 'no parts'}."


def _commands(lines: list[str]) -> Json:
    return {"commands": lines, "timeout_ms": 10_000, "max_output_length": 4096}
