"""Builds the body of a request from an UpstreamCall: for Responses directly, for Chat Completions translated.

Pure. Params pass through unchanged, without the keys that Vigil owns; only chat needs other names and shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from worker.upstream.call import OWNED_PARAMS, UpstreamCall
from worker.upstream.token_limit import BOTH, NEW, OLD
from worker.upstream.tolerant_fields import mapping

_LOGPROBS: Final = "message.output_text.logprobs"
_CALLS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
"""Of each kind of call in an input: its type in chat, and the member that holds what the tool gets."""


def path_of(call: UpstreamCall) -> str:
    """Return the path of the call below the base URL."""
    return "/chat/completions" if call.mode == "chat" else "/responses"


def body_of(call: UpstreamCall, limit_names: Sequence[str] = BOTH) -> dict[str, Any]:
    """Return the JSON body of `call`, which is not changed. `limit_names`: see `token_limit`."""
    return _chat_body(call, limit_names) if call.mode == "chat" else _responses_body(call)


def _responses_body(call: UpstreamCall) -> dict[str, Any]:
    body = {key: value for key, value in call.params.items() if key not in OWNED_PARAMS}
    # padding against traffic analysis costs a third of every delta; a caller may ask for it
    body["stream_options"] = {"include_obfuscation": False, **mapping(body.get("stream_options"))}
    body |= {"model": call.model, "input": call.input, "stream": True}
    if call.mode == "background":
        body |= {"background": True, "store": True}  # only a stored response can be resumed
    else:
        body["store"] = call.store
    if call.instructions is not None:
        body["instructions"] = call.instructions
    if call.safety_identifier is not None:
        body["safety_identifier"] = call.safety_identifier
    return body


def _chat_body(call: UpstreamCall, limit_names: Sequence[str]) -> dict[str, Any]:
    body = {key: value for key, value in call.params.items() if key not in OWNED_PARAMS}
    limit = body.pop("max_output_tokens", None)
    if limit is not None and NEW not in body and OLD not in body:  # the caller may use the server's own name
        body |= dict.fromkeys(limit_names, limit)
    effort = mapping(body.pop("reasoning", None)).get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    shape = mapping(body.pop("text", None))
    if shape.get("verbosity") is not None:
        body["verbosity"] = shape["verbosity"]
    if (wanted := _response_format(mapping(shape.get("format")))) is not None:
        body["response_format"] = wanted
    if type(body.get("tools")) is list:
        body["tools"] = [_tool(tool) for tool in body["tools"]]
    if "tool_choice" in body:
        body["tool_choice"] = _tool_choice(body["tool_choice"])
    if type(included := body.get("include")) is list and _LOGPROBS in included:
        body["logprobs"] = True
        if rest := [one for one in included if one != _LOGPROBS]:
            body["include"] = rest
        else:
            del body["include"]
    body["stream_options"] = {**mapping(body.get("stream_options")), "include_usage": True}
    body |= {"model": call.model, "messages": _messages(call), "stream": True}
    if call.safety_identifier is not None:
        body["safety_identifier"] = call.safety_identifier
    return body


def _response_format(wanted: dict[str, Any]) -> dict[str, Any] | None:
    kind = wanted.get("type")
    if kind == "json_schema":
        return {"type": kind, "json_schema": {key: value for key, value in wanted.items() if key != "type"}}
    return None if kind in (None, "text") else wanted


def _tool(tool: object) -> object:
    kind = tool.get("type") if type(tool) is dict else None
    if type(tool) is not dict or kind not in ("function", "custom") or kind in tool:
        return tool
    inner = {key: value for key, value in tool.items() if key != "type"}
    form = mapping(inner.get("format"))
    if kind == "custom" and form.get("type") == "grammar" and "grammar" not in form:
        inner["format"] = {"type": "grammar", "grammar": {k: v for k, v in form.items() if k != "type"}}
    return {"type": kind, kind: inner}


def _tool_choice(choice: object) -> object:
    if type(choice) is dict and choice.get("type") == "allowed_tools" and type(choice.get("tools")) is list:
        tools = [_tool(tool) for tool in choice["tools"]]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
    return _tool(choice)


def _messages(call: UpstreamCall) -> list[Any]:
    messages: list[Any] = []
    if call.instructions is not None:
        messages.append({"role": "system", "content": call.instructions})
    if isinstance(call.input, str):
        messages.append({"role": "user", "content": call.input})
        return messages
    for item in call.input:
        kind = item.get("type", "message") if type(item) is dict else None
        if kind == "message":
            messages.append(_message(item))
        elif type(kind) is str and kind in _CALLS:
            _add_tool_call(messages, item, *_CALLS[kind])
        elif kind in ("function_call_output", "custom_tool_call_output"):
            output = _plain(item.get("output"))
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind != "reasoning":  # chat has no form for it; the provider judges anything else
            messages.append({"role": "user", "content": item} if type(item) is str else item)
    return messages


def _message(item: dict[str, Any]) -> dict[str, Any]:
    role, content = item.get("role", "user"), item.get("content")
    if type(content) is list:
        parts = [_part(part) for part in content]
        content = _plain(content) if role == "assistant" and all(_is_text(part) for part in parts) else parts
    kept = {"name": item["name"]} if "name" in item else {}
    return {"role": role, "content": content, **kept}


def _is_text(part: object) -> bool:
    return type(part) is dict and part.get("type") == "text"


def _part(part: object) -> object:
    if type(part) is not dict:
        return part
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text", "")}
        case "input_image":
            url = part.get("image_url")
            detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
            return {"type": "image_url", "image_url": {"url": url, **detail}}
        case "input_file":
            names = ("file_id", "file_data", "filename")
            return {"type": "file", "file": {name: part[name] for name in names if name in part}}
        case _:
            return part


def _add_tool_call(messages: list[Any], item: dict[str, Any], kind: str, field: str) -> None:
    inner = {"name": item.get("name"), field: item.get(field, "")}
    call = {"id": item.get("call_id"), "type": kind, kind: inner}
    last = messages[-1] if messages else None
    if type(last) is dict and last.get("role") == "assistant":
        last.setdefault("tool_calls", []).append(call)  # made by `_message`, so it may be changed
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _plain(content: object) -> object:
    """Return text parts as one string; anything else unchanged."""
    if type(content) is list and all(type(part) is dict and type(part.get("text")) is str for part in content):
        return "".join(part["text"] for part in content)
    return content
