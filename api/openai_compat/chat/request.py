"""Translates the body of a chat completion request to a job, by way of a Responses request. Pure.

What the Responses API can carry is translated, what it can't is refused by name. Fields that neither API has are passed
to the provider unchanged, as on `/v1/responses`. With VIGIL_UPSTREAM=chat the provider is called with Chat Completions
again, so what only that has is passed too.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from api.openai_compat.chat.faults import Origins, invalid, unsupported, with_chat_names
from api.openai_compat.chat.messages import Translation
from api.openai_compat.chat.tools import text_format_of, tool_choice_of, tools_of
from api.openai_compat.request import ParsedRequest, parse_request
from api.schema.requests import Submit
from api.web.problems import Problem

Json = dict[str, Any]

_LOGPROBS: Final = "message.output_text.logprobs"
_ONLY_CHAT: Final[dict[str, tuple[object, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "seed": (),
    "stop": ([],),
}
"""Fields that only Chat Completions has, with the values that ask for nothing."""
_REFUSED: Final = {
    "functions": "is deprecated; send `tools`.",
    "function_call": "is deprecated; send `tool_choice`.",
    "audio": "Vigil carries answers in text only.",
    "prediction": "the Responses API has no predicted outputs; leave it out.",
    "web_search_options": "use /v1/responses with the tool `web_search`.",
    "moderation": "its scores are not part of a job; leave it out.",
    "input": "is a field of /v1/responses; send `messages`.",
    "instructions": "is a field of /v1/responses; send a message of the role `developer`.",
    "max_output_tokens": "is a field of /v1/responses; send `max_completion_tokens`.",
    "text": "is a field of /v1/responses; send `response_format` and `verbosity`.",
    "include": "is a field of /v1/responses.",
    "background": "is a field of /v1/responses; every completion is a job that runs on when its client leaves.",
    "previous_response_id": "is a field of /v1/responses; send the earlier messages.",
    "conversation": "is a field of /v1/responses; send the earlier messages.",
    "prompt": "is not a field of chat completions; send `messages`.",
}
_TRANSLATED: Final = frozenset(
    {"messages", "n", "modalities", "max_tokens", "max_completion_tokens", "reasoning_effort", "verbosity", "tools"}
    | {"response_format", "tool_choice", "logprobs", "top_logprobs", "stream_options", *_ONLY_CHAT, *_REFUSED}
)
_STREAM_OPTIONS: Final = frozenset({"include_usage", "include_obfuscation"})


class ParsedChat(NamedTuple):
    """The job to submit, and how its completion is requested."""

    job: Submit
    stream: bool
    include_usage: bool
    origins: Origins


def parse_chat(sent: Any, *, carries_chat: bool) -> ParsedChat:
    """Parse a body. Raises a Problem that names a bad field.

    `carries_chat`: the provider is called with Chat Completions (VIGIL_UPSTREAM=chat).
    """
    if not isinstance(sent, dict):
        raise Problem(422, "validation_error", "The body must be an object.")
    for name, detail in _REFUSED.items():
        if sent.get(name) is not None:
            raise unsupported(name, detail)
    _check_choices(sent)
    found = Translation(sent.get("messages"), carries_chat=carries_chat)
    body = {name: value for name, value in sent.items() if name not in _TRANSLATED}
    body |= {"input": found.items, **_limit(sent), **_shape(sent), **_tools(sent), **_logprobs(sent)}
    body |= _only_chat(sent, carries_chat=carries_chat)
    try:
        parsed: ParsedRequest = parse_request(body)
    except Problem as problem:
        raise with_chat_names(problem, found.origins) from None
    return ParsedChat(parsed.job, parsed.stream, _include_usage(sent), found.origins)


def _check_choices(sent: Json) -> None:
    n = sent.get("n")
    if n is not None and (isinstance(n, bool) or n != 1):
        raise unsupported("n", "a job has one answer, so only 1 is possible; send one request for each.")
    modalities = sent.get("modalities")
    if modalities is not None and modalities != ["text"]:
        raise unsupported("modalities", 'Vigil carries answers in text only: ["text"].')


def _limit(sent: Json) -> Json:
    new, old = sent.get("max_completion_tokens"), sent.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise invalid("max_tokens", "differs from max_completion_tokens; send one of them")
    limit, name = (new, "max_completion_tokens") if new is not None else (old, "max_tokens")
    if limit is None:
        return {}
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise invalid(name, "must be an integer of at least 1")
    return {"max_output_tokens": limit}


def _shape(sent: Json) -> Json:
    """Return `text` and `reasoning`."""
    text: Json = {}
    if sent.get("response_format") is not None:
        text["format"] = text_format_of(sent["response_format"])
    if sent.get("verbosity") is not None:
        text["verbosity"] = sent["verbosity"]
    out: Json = {"text": text} if text else {}
    effort, reasoning = sent.get("reasoning_effort"), sent.get("reasoning")
    if effort is not None:
        if reasoning is not None and not isinstance(reasoning, dict):
            raise invalid("reasoning", "must be an object")
        if reasoning and reasoning.get("effort") not in (None, effort):
            raise invalid("reasoning_effort", "differs from reasoning.effort; send one of them")
        out["reasoning"] = {**(reasoning or {}), "effort": effort}
    return out


def _tools(sent: Json) -> Json:
    out: Json = {}
    if sent.get("tools") is not None:
        out["tools"] = tools_of(sent["tools"])
    if sent.get("tool_choice") is not None:
        out["tool_choice"] = tool_choice_of(sent["tool_choice"])
    return out


def _logprobs(sent: Json) -> Json:
    wanted, top = sent.get("logprobs"), sent.get("top_logprobs")
    if wanted is not None and not isinstance(wanted, bool):
        raise invalid("logprobs", "must be true or false")
    if not wanted:
        if top is not None:
            raise invalid("top_logprobs", "needs logprobs: true")
        return {}
    return {"include": [_LOGPROBS], **({"top_logprobs": top} if top is not None else {})}


def _only_chat(sent: Json, *, carries_chat: bool) -> Json:
    out: Json = {}
    for name, nothing in _ONLY_CHAT.items():
        value = sent.get(name)
        if value is None or (not isinstance(value, bool) and value in nothing):
            continue
        if not carries_chat:
            raise unsupported(name, "the Responses API has no such field; leave it out, or set VIGIL_UPSTREAM=chat.")
        out[name] = value
    return out


def _include_usage(sent: Json) -> bool:
    options = sent.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise invalid("stream_options", "must be an object")
    if sent.get("stream") is not True:
        raise invalid("stream_options", "needs stream: true")
    for name, value in options.items():
        if name not in _STREAM_OPTIONS:
            raise unsupported(f"stream_options.{name[:64]}", "is not an option that Vigil knows; leave it out.")
        if value is not None and not isinstance(value, bool):
            raise invalid(f"stream_options.{name}", "must be true or false")
    return options.get("include_usage") is True
