"""Reads from a request what its price depends on: tier, window, output limit, and how many input tokens it can have.

No tokenizer is kept (their vocabularies are downloads), so tokens are bounded by size: a token of text stands for one
byte or more, so a request has at most as many tokens of text as it has bytes of JSON. An image counts as 16,384, more
than any model charges for one. What only the provider can measure (files, audio, references to stored items, tools that
it runs itself) counts as the model's whole context. Pure; the result has no content.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

BYTES_PER_TOKEN: Final = 4
"""Of usual text; for estimates, never for limits."""
MAX_CONTEXT_TOKENS: Final = 1_050_000
"""The largest context of any model; for models whose own is not in models.toml."""
MAX_IMAGE_TOKENS: Final = 16_384
_LIKELY_IMAGE_TOKENS: Final = 1_000
_OVERHEAD_TOKENS: Final = 64  # what the provider adds to a request: roles, ends of messages
_NAME: Final = re.compile(r"[a-z0-9_-]{1,32}")
_IMAGES: Final = frozenset({"input_image", "image_url"})
_UNMEASURED: Final = frozenset({"input_file", "file", "input_audio", "input_video", "item_reference"})
_OWN_TOOLS: Final = frozenset({"function", "custom"})
_REFERENCES: Final = ("previous_response_id", "conversation", "prompt")
_LIMITS: Final = ("max_output_tokens", "max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True)
class RequestShape:
    """What the price of a request depends on. `choices`: how many answers are asked for at once."""

    likely_input: int = 0
    bytes_input: int = 0  # the bound by size
    unmeasured: bool = False
    service_tier: str | None = None
    window: str | None = None
    effort: str | None = None
    output_limit: int | None = None  # the app's own
    choices: int = 1
    kept_12h: bool = False

    def highest_input(self, context_tokens: int | None) -> int:
        """Return the most input tokens that the request can have on a model with this context."""
        context = context_tokens or MAX_CONTEXT_TOKENS
        if self.unmeasured:
            return context
        return min(self.bytes_input, context) if context_tokens else self.bytes_input


def shape_of(request: Mapping[str, Any]) -> RequestShape:
    """Return the shape of a job's request: its `input`, `instructions` and `params`."""
    params: Mapping[str, Any] = _mapping(request.get("params"))
    sent = request.get("input")
    images, size, unmeasured = 0, 0, False
    if not isinstance(sent, str):
        sent, images, unmeasured = _measured(sent)
        size += _bytes(sent)
    else:
        size += len(sent.encode("utf-8", "surrogatepass"))
    instructions = request.get("instructions")
    size += len(instructions.encode("utf-8", "surrogatepass")) if isinstance(instructions, str) else 0
    text = {name: params[name] for name in ("tools", "text", "response_format", "tool_choice") if name in params}
    size += _bytes(text) if text else 0
    tools = params.get("tools")
    unmeasured |= any(_mapping(tool).get("type", "function") not in _OWN_TOOLS for tool in _list(tools))
    unmeasured |= any(params.get(name) is not None for name in _REFERENCES)
    effort = _mapping(params.get("reasoning")).get("effort") or params.get("reasoning_effort")
    window = _name(_mapping(params.get("background_options")).get("completion_window"))
    choices = params.get("n")
    limits = [value for name in _LIMITS if (value := _limit(params.get(name))) is not None]
    return RequestShape(
        likely_input=math.ceil(size / BYTES_PER_TOKEN) + images * _LIKELY_IMAGE_TOKENS,
        bytes_input=size + images * MAX_IMAGE_TOKENS + _OVERHEAD_TOKENS,
        unmeasured=unmeasured,
        service_tier=_name(params.get("service_tier")),
        window=None if window in (None, "soonest") else window,
        effort=_name(effort),
        output_limit=max(limits) if limits else None,
        choices=choices if type(choices) is int and choices > 1 else 1,
        kept_12h=_mapping(params.get("prompt_cache_options")).get("ttl") == "12h",
    )


def with_output_limit(params: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the params with an output limit of at most `limit`; a lower one of the app stays as it is."""
    bounded = dict(params)
    given = [name for name in _LIMITS if bounded.get(name) is not None]
    for name in given:
        own = _limit(bounded[name])
        bounded[name] = limit if own is None else min(own, limit)
    if "max_output_tokens" not in given:  # a server may read only this one
        bounded["max_output_tokens"] = min([limit, *(bounded[name] for name in given)])
    return bounded


def _measured(sent: object) -> tuple[object, int, bool]:
    """Return (the items without their images, how many images, whether there is anything that has no size here)."""
    images, unmeasured = 0, False
    for part in _parts(sent):
        if part.get("type") in _IMAGES:
            images += 1
        unmeasured |= part.get("type") in _UNMEASURED
    return (_without_images(sent) if images else sent), images, unmeasured


def _parts(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield every object of an input, however deep."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Mapping):
            yield one
            pending += one.values()
        elif isinstance(one, list):
            pending += one


def _without_images(value: object) -> object:
    if isinstance(value, Mapping):
        if value.get("type") in _IMAGES:
            return {"type": value["type"]}
        return {key: _without_images(one) for key, one in value.items()}
    return [_without_images(one) for one in value] if isinstance(value, list) else value


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _limit(value: object) -> int | None:
    """Return a usable limit: a whole number from 1."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value > 0 else None


def _name(value: object) -> str | None:
    """Return a short plain name, which may stand in a record; None for anything else."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None
