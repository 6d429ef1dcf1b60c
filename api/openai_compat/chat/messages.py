"""Translates the messages of a chat request to input items of the Responses API. Pure.

Every member is carried or refused by name; none is dropped but what says nothing (null, an empty list) and what an
answer says of itself (`annotations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from api.openai_compat.chat.faults import invalid, unsupported

Json = dict[str, Any]

_NO_AUDIO: Final = "audio can't be carried by the Responses API; send its text, or set VIGIL_UPSTREAM=chat."
_NO_NAME: Final = (
    "the Responses API has no name of a message; write it into the text, or set VIGIL_UPSTREAM=chat, which carries it."
)
_ROLES: Final = "must be developer, system, user, assistant or tool"
_MEMBERS: Final[Mapping[str, frozenset[str]]] = {
    "developer": frozenset({"role", "content", "name"}),
    "system": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "name", "refusal", "tool_calls", "annotations"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
}
_HINTS: Final = {
    "function_call": "is deprecated; send `tool_calls`, and the result as a message of the role `tool`.",
    "audio": _NO_AUDIO,
}


class Translation:
    """The input items of a list of messages; `origins`: the number of the message that each comes from."""

    def __init__(self, messages: object, *, carries_chat: bool) -> None:
        """`carries_chat`: the provider is called with Chat Completions, so that names and audio reach it."""
        if not isinstance(messages, list) or not messages:
            raise invalid("messages", "must be a list of at least one message")
        self.items: list[Json] = []
        self.origins: list[int] = []
        self._carries_chat = carries_chat
        self._custom_calls: set[str] = set()
        for number, message in enumerate(messages):
            found = self._message(message, f"messages[{number}]")
            self.items += found
            self.origins += [number] * len(found)

    def _message(self, message: object, at: str) -> list[Json]:
        if not isinstance(message, dict):
            raise invalid(at, "must be an object")
        role = message.get("role")
        if role == "function":
            raise unsupported(f"{at}.role", "`function` is deprecated; send the result in the role `tool`.")
        if not isinstance(role, str) or role not in _MEMBERS:
            raise invalid(f"{at}.role", _ROLES)
        sent = {name: value for name, value in message.items() if value is not None}
        for name in sent:
            if name not in _MEMBERS[role]:
                raise unsupported(
                    f"{at}.{name[:64]}", _HINTS.get(name, f"a message of the role {role} has no such member.")
                )
        if "name" in sent and not self._carries_chat:
            raise unsupported(f"{at}.name", _NO_NAME)
        match role:
            case "assistant":
                return self._assistant(sent, at)
            case "tool":
                return [self._result(sent, at)]
            case _:
                content = self._content(sent.get("content"), f"{at}.content", only_text=role != "user")
                return [{"role": role, "content": content, **_name(sent)}]

    def _content(self, content: object, at: str, *, only_text: bool) -> str | list[Json]:
        if isinstance(content, str):
            return content
        if not isinstance(content, list) or not content:
            raise invalid(at, "must be a text or a list of at least one content part")
        return [self._part(part, f"{at}[{i}]", only_text=only_text) for i, part in enumerate(content)]

    def _part(self, part: object, at: str, *, only_text: bool) -> Json:
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str):
            raise invalid(at, "must be an object with a `type`")
        if kind == "text":
            return _members(part, {"text"}, at, {"type": "input_text", "text": _text(part, "text", at)})
        if not only_text:
            if kind == "image_url":
                return _image(part, at)
            if kind == "file":
                return _file(part, at)
            if kind == "input_audio" and self._carries_chat:
                return part
        if kind == "input_audio":
            raise unsupported(at, _NO_AUDIO)
        raise invalid(f"{at}.type", "must be text" if only_text else "must be text, image_url, input_audio or file")

    def _assistant(self, sent: Json, at: str) -> list[Json]:
        content, refusal, calls = sent.get("content"), sent.get("refusal"), sent.get("tool_calls", [])
        if refusal is not None and not isinstance(refusal, str):
            raise invalid(f"{at}.refusal", "must be a text")
        if not isinstance(calls, list):
            raise invalid(f"{at}.tool_calls", "must be a list")
        parts: str | list[Json] | None = content if isinstance(content, str) else None
        if isinstance(content, list) and content:
            parts = [_answer_part(part, f"{at}.content[{i}]") for i, part in enumerate(content)]
        elif content is not None and not isinstance(content, str):
            raise invalid(f"{at}.content", "must be a text or a list of at least one content part")
        if refusal is not None:
            texts = [{"type": "output_text", "text": parts}] if isinstance(parts, str) and parts else parts or []
            parts = [*texts, {"type": "refusal", "refusal": refusal}]
        if parts is None and not calls:
            raise invalid(f"{at}.content", "is required, unless the message has tool_calls or a refusal")
        begun = (
            [] if parts is None or (parts == "" and calls) else [{"role": "assistant", "content": parts, **_name(sent)}]
        )
        return begun + [self._call(call, f"{at}.tool_calls[{i}]") for i, call in enumerate(calls)]

    def _call(self, call: object, at: str) -> Json:
        kind = call.get("type", "function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or kind not in ("function", "custom"):
            raise invalid(at, "must be an object of the type function or custom")
        inner = call.get(kind)
        if not isinstance(inner, dict):
            raise invalid(f"{at}.{kind}", "must be an object")
        call_id, name = _text(call, "id", at), _text(inner, "name", f"{at}.{kind}")
        if kind == "function":
            arguments = _text(inner, "arguments", f"{at}.function")
            out = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
            return _members(call, {"id", "function", "index"}, at, out)
        self._custom_calls.add(call_id)
        out = {"type": "custom_tool_call", "call_id": call_id, "name": name}
        return _members(call, {"id", "custom", "index"}, at, {**out, "input": _text(inner, "input", f"{at}.custom")})

    def _result(self, sent: Json, at: str) -> Json:
        call_id = _text(sent, "tool_call_id", at)
        output = sent.get("content")
        if output != []:
            output = self._content(output, f"{at}.content", only_text=True)
        kind = "custom_tool_call_output" if call_id in self._custom_calls else "function_call_output"
        return {"type": kind, "call_id": call_id, "output": output}


def _name(sent: Json) -> Json:
    return {"name": sent["name"]} if "name" in sent else {}


def _text(owner: Json, name: str, at: str) -> str:
    value = owner.get(name)
    if not isinstance(value, str):
        raise invalid(f"{at}.{name}", "must be a text")
    return value


def _members(owner: Json, known: set[str], at: str, out: Json) -> Json:
    """Return `out`, with the cache breakpoint that both APIs know; raise a Problem for a member that is not `known`."""
    for name, value in owner.items():
        if name == "prompt_cache_breakpoint" and value is not None:
            out[name] = value
        elif name != "type" and name not in known and value is not None:
            raise unsupported(f"{at}.{name[:64]}", "is not a member that a job can carry.")
    return out


def _image(part: Json, at: str) -> Json:
    image = part.get("image_url")
    if not isinstance(image, dict):
        raise invalid(f"{at}.image_url", "must be an object with a `url`")
    out = {"type": "input_image", "image_url": _text(image, "url", f"{at}.image_url")}
    out["detail"] = image["detail"] if image.get("detail") is not None else "auto"
    _members(image, {"url", "detail"}, f"{at}.image_url", {})
    return _members(part, {"image_url"}, at, out)


def _file(part: Json, at: str) -> Json:
    file = part.get("file")
    if not isinstance(file, dict):
        raise invalid(f"{at}.file", "must be an object with `file_data`")
    known = ("file_data", "filename", "file_id")
    out = {"type": "input_file"} | {
        name: _text(file, name, f"{at}.file") for name in known if file.get(name) is not None
    }
    if len(out) == 1:
        raise invalid(f"{at}.file", "must have `file_data`")
    _members(file, set(known), f"{at}.file", {})
    return _members(part, {"file"}, at, out)


def _answer_part(part: object, at: str) -> Json:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind == "text":
        return _members(part, {"text"}, at, {"type": "output_text", "text": _text(part, "text", at)})
    if isinstance(part, dict) and kind == "refusal":
        return _members(part, {"refusal"}, at, {"type": "refusal", "refusal": _text(part, "refusal", at)})
    raise invalid(f"{at}.type", "must be text or refusal")
