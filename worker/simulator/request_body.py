"""Parses one request body into a value: its prompt text, its flags, its identity.

Pure. It must not depend on scenarios or HTTP; a body that the provider would refuse raises BadRequestError.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from .errors import ErrorShape, simple

Json = dict[str, Any]


class BadRequestError(ValueError):
    """A request body that the provider refuses; `.error` is the answer."""

    def __init__(self, error: ErrorShape) -> None:
        """Keep the answer."""
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A parsed create request; `text` is the string input or the last user message."""

    body: Json
    model: str
    text: str
    sha256: str
    input_tokens: int
    stream: bool
    background: bool
    store: bool
    obfuscate: bool
    include_usage: bool
    limit: int | None  # max_output_tokens

    @property
    def identity(self) -> str:
        """Return the key by which `times` counts: the same input to the same model."""
        return f"{self.model}\n{self.sha256}"

    @property
    def items(self) -> list[Json]:
        """Return the items of `input` or the messages, without those that are no objects."""
        source = self.body.get("messages") if "messages" in self.body else self.body.get("input")
        return [item for item in source if isinstance(item, dict)] if isinstance(source, list) else []

    def json_schema(self) -> Json | None:
        """Return the schema when a JSON answer is asked for ({} for plain JSON), else None."""
        text = self.body.get("text")
        shape = text.get("format") if isinstance(text, dict) else self.body.get("response_format")
        if not isinstance(shape, dict):
            return None
        match shape.get("type"):
            case "json_schema":
                schema = shape.get("schema") or (shape.get("json_schema") or {}).get("schema")
                return schema if isinstance(schema, dict) else {}
            case "json_object":
                return {}
            case _:
                return None


def read(raw: bytes, *, chat: bool) -> ParsedRequest:
    """Return the request in a POST body of /v1/responses or /v1/chat/completions; BadRequestError when it isn't one."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequestError(simple(400, "We could not parse the JSON body of your request.")) from None
    if not isinstance(body, dict):
        raise BadRequestError(simple(400, "The JSON body of your request must be an object."))
    model = body.get("model")
    if model is None:
        raise _missing("model")
    if not isinstance(model, str) or not model:
        raise _wrong("model", "a string")
    name = "messages" if chat else "input"
    source = body.get(name)
    if source is None or (chat and not source):
        raise _missing(name)
    if not isinstance(source, (list,) if chat else (str, list)):
        raise _wrong(name, "a list" if chat else "a string or a list")
    for flag in ("stream", "background", "store"):
        if not isinstance(body.get(flag), (bool, type(None))):
            raise _wrong(flag, "a boolean")
    return _ask(body, model, source, chat=chat)


def _ask(body: Json, model: str, source: str | list[Any], *, chat: bool) -> ParsedRequest:
    text = source if isinstance(source, str) else _last_user_text(source)
    options = body.get("stream_options")
    options = options if isinstance(options, dict) else {}
    limit = body.get("max_output_tokens") or body.get("max_completion_tokens") or body.get("max_tokens")
    instructions = body.get("instructions")
    length = len(source) if isinstance(source, str) else sum(len(_text_of(item)) for item in source)
    length += len(instructions) if isinstance(instructions, str) else 0
    return ParsedRequest(
        body=body,
        model=model,
        text=text,
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        input_tokens=max(1, length // 4),
        stream=body.get("stream") is True,
        background=not chat and body.get("background") is True,
        store=body.get("store") is not False,
        obfuscate=options.get("include_obfuscation") is not False,
        include_usage=options.get("include_usage") is True,
        limit=limit if isinstance(limit, int) and limit > 0 else None,
    )


def digest_of(items: list[Any]) -> str:
    """Return the digest of input items as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(items, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _last_user_text(items: list[Any]) -> str:
    for item in reversed(items):
        if isinstance(item, dict) and item.get("role") == "user":
            return _text_of(item)
    return ""


def _text_of(item: Any) -> str:
    content = item.get("content") if isinstance(item, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return " ".join(text for text in texts if isinstance(text, str))


def _missing(name: str) -> BadRequestError:
    return BadRequestError(
        simple(400, f"Missing required parameter: '{name}'.", code="missing_required_parameter", param=name)
    )


def _wrong(name: str, want: str) -> BadRequestError:
    return BadRequestError(simple(400, f"Invalid type for '{name}': expected {want}.", code="invalid_type", param=name))
