"""Translates tools, the choice among them, and the format of the answer from a chat request. Pure."""

from __future__ import annotations

from typing import Any, Final

from api.openai_compat.chat.faults import invalid, unsupported

Json = dict[str, Any]

_KINDS: Final = ("function", "custom")
_NO_PARAMETERS: Final = {"type": "object", "properties": {}}


def tools_of(tools: object) -> list[Json]:
    """Return the tools as those of the Responses API.

    There a function is strict unless it says otherwise, and must name its parameters: what chat takes as a default is
    written out.
    """
    if not isinstance(tools, list):
        raise invalid("tools", "must be a list")
    out: list[Json] = []
    for number, tool in enumerate(tools):
        at = f"tools[{number}]"
        kind, inner = _inner(tool, at)
        if kind == "function":
            flat = {"type": "function", **inner, "strict": inner.get("strict") is True}
            flat["parameters"] = inner["parameters"] if inner.get("parameters") is not None else _NO_PARAMETERS
        else:
            flat = {"type": "custom", **inner}
            if isinstance(form := inner.get("format"), dict) and isinstance(form.get("grammar"), dict):
                flat["format"] = {"type": "grammar", **form["grammar"]}
        out.append(flat)
    return out


def tool_choice_of(choice: object) -> object:
    """Return the choice among the tools as that of the Responses API."""
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise invalid("tool_choice", "must be none, auto, required or an object")
    if choice.get("type") != "allowed_tools":
        kind, inner = _inner(choice, "tool_choice")
        return {"type": kind, "name": inner["name"]}
    allowed = choice.get("allowed_tools")
    tools = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(allowed, dict) or not isinstance(tools, list):
        raise invalid("tool_choice.allowed_tools", "must be an object with `mode` and `tools`")
    named = [_inner(tool, f"tool_choice.allowed_tools.tools[{i}]") for i, tool in enumerate(tools)]
    rows = [{"type": kind, "name": inner["name"]} for kind, inner in named]
    return {"type": "allowed_tools", "mode": allowed.get("mode"), "tools": rows}


def text_format_of(wanted: object) -> Json:
    """Return the format of the answer as `text.format` of the Responses API."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or kind not in ("text", "json_object", "json_schema"):
        raise invalid("response_format.type", "must be text, json_object or json_schema")
    if kind != "json_schema":
        return {"type": kind}
    schema = wanted.get("json_schema")
    if not isinstance(schema, dict):
        raise invalid("response_format.json_schema", "must be an object")
    return {"type": kind, **schema}


def _inner(tool: object, at: str) -> tuple[str, Json]:
    """Return (type, the object of that name), which has a name."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(kind, str):
        raise invalid(at, "must be an object with a `type`")
    if kind not in _KINDS:
        raise unsupported(f"{at}.type", "chat has function and custom tools only; use /v1/responses for others.")
    inner = tool.get(kind)
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise invalid(f"{at}.{kind}", "must be an object with a `name`")
    for name in tool:
        if name not in ("type", kind) and tool[name] is not None:
            raise unsupported(f"{at}.{name[:64]}", "is not a member of a tool in chat.")
    return kind, inner
