"""Parses and prints the directive language `[[sim: SCENARIO key=value ...]]`, and defines its options.

Pure. It must not depend on which scenarios exist (scenarios.py does) nor what an option leads to (script.py does).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool

OPENING = "[[sim:"
_OPENING = re.compile(r"\[\[sim:", re.IGNORECASE)
_MAX_LENGTH = 2000
_WORD = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
_TEXT = re.compile(r"^[^\s\[\]=]{1,200}$")
_CARRIER = re.compile(
    r"^(http|http_[45]\d\d|html|error_event|flat_error|late_error|nameless|response_failed|incomplete)$"
)


class DirectiveError(ValueError):
    """A directive that is not valid; the message is one sentence for its author."""


@dataclass(frozen=True, slots=True)
class Option:
    """One `key=value` of the language: how its value is read, and what it means."""

    read: Callable[[str], Value]
    meaning: str


@dataclass(frozen=True, slots=True)
class Directive:
    """A scenario's name and its options, values already read; unknown scenario names are still possible here."""

    scenario: str
    options: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the text that parses back to this directive."""
        words = [self.scenario, *(f"{key}={_show(value)}" for key, value in self.options.items())]
        return f"{OPENING} {' '.join(words)}]]"


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return value

    return read


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def _text(text: str) -> str:
    if not _TEXT.match(text):
        raise ValueError("must be 1-200 characters without spaces, brackets and =")
    return text


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("must be 0 or 1")
    return text == "1"


def _carrier(text: str) -> str:
    if not _CARRIER.match(text):
        raise ValueError(
            "must be http, http_4xx, http_5xx, html, error_event, flat_error, late_error, nameless, response_failed or "
            "incomplete"
        )
    return text


DAY = 86_400.0

OPTIONS: dict[str, Option] = {
    "hold": Option(_number(0, DAY), "seconds of silence (the check, the delay) before output or the failure"),
    "keepalive": Option(_number(0, DAY), "seconds between keepalive events during the hold; 0 = none"),
    "queue": Option(_number(0, DAY), "seconds that a background response stays queued"),
    "latency": Option(_number(0, DAY), "ordinary seconds before the first output"),
    "tokens": Option(_integer(0, 200_000), "length of the answer, one delta per token"),
    "rate": Option(_number(0.01, 100_000), "tokens per second"),
    "partial": Option(_integer(0, 200_000), "deltas sent before a failure or an early end"),
    "signal": Option(
        _one_of("none", "metadata", "top", "typed", "snapshot", "mid"), "how a check is announced (mid: during output)"
    ),
    "repeats": Option(_integer(0, 1000), "how often the announcement is repeated during the hold"),
    "again": Option(_number(0, DAY), "seconds of a second check in the middle of the output; 0 = none"),
    "use_case": Option(_text, "use cases of the check, comma separated"),
    "reason": Option(_text, "reasons of the check, comma separated"),
    "retry_model": Option(_text, "faster model that the check names; `none` = explicit null, `absent` = key left out"),
    "shape": Option(
        _one_of(
            *("full", "reasons", "retry_model", "use_cases", "reason", "enabled", "disabled", "string"),
            *("duplicate", "proto"),
        ),
        "what the object that announces a check has",
    ),
    "form": Option(
        _one_of("plain", "websocket", "misalignment", "worded", "status", "moderation"), "how the error is written"
    ),
    "param": Option(_text, "`param` of the error, such as safety_identifier"),
    "quote": Option(_integer(0, 10_000), "words of the prompt that the message of the failure repeats"),
    "removed": Option(_integer(0, 100), "reasoning items that the provider says it removed from the input"),
    "cache_write": Option(_integer(0, 1_000_000), "input tokens that were written to the prompt cache"),
    "code": Option(_text, "error code, or the reason of an incomplete response"),
    "carrier": Option(_carrier, "how the failure travels"),
    "retry_after": Option(_number(0, DAY), "seconds to wait told by the provider (headers, or prose in a stream)"),
    "times": Option(_integer(0, 1_000_000), "happen this often for the same input and model, then answer; 0 = always"),
    "how": Option(
        _one_of("rst", "fin", "clean", "half", "bad_json", "hang", "no_terminal", "drop"), "how a connection is cut"
    ),
    "after": Option(_integer(0, 200_000), "events sent on a connection before it is cut"),
    "served": Option(_text, "name of the model that really serves"),
    "org": Option(_text, "value of the openai-organization header"),
    "resume": Option(_one_of("ok", "refused", "lost"), "what happens to a resume: works, 400 too old, 404"),
    "looks": Option(
        _one_of("ok", "limited", "overloaded", "late", "snapshot"),
        "a GET of the response meets 429, 503, 404, or JSON in the place of a stream",
    ),
    "look_hold": Option(_number(0, DAY), "seconds from the create on for which `looks` counts; 0 = for ever"),
    "tool": Option(_flag, "1 = call the first function of `tools` instead of writing text"),
    "name": Option(_text, "tools that are called, one a round, comma separated; else the first one"),
    "calls": Option(_integer(1, 20), "calls at once, of the tools in turn"),
    "rounds": Option(_integer(0, 50), "rounds of calls before the message; 0 = one for each name, at least one"),
    "command": Option(_text, "what the shell runs"),
    "reasoning": Option(_flag, "1 = a reasoning item comes first"),
    "notify": Option(
        _one_of("identifier_blocked", "warning", "deactivation", "alert"),
        "a webhook of the safety team about this request, after the hold",
    ),
    "only": Option(_text, "apply only when the request's model is exactly this one"),
    "any": Option(_flag, "1 = apply to the fast tier (luna, mini) as well"),
}


def find(text: str) -> Directive | None:
    """Return the first directive in the text, or None when there is none.

    Raises DirectiveError for a directive that is unclosed or malformed, or has an unknown option or a bad value.
    """
    inner, opened = None, False
    end = -1  # of the first closing brackets after the opening ones: found once for all that are before it
    for opening in _OPENING.finditer(text):
        opened = True
        if end < opening.end():
            end = text.find("]]", opening.end())
        if end < 0:
            break
        if end - opening.end() <= _MAX_LENGTH:
            inner = text[opening.end() : end]
            break
    if inner is not None:
        return parse(inner)
    if opened:
        raise DirectiveError(f"A {OPENING} directive isn't closed by ]] (or is longer than {_MAX_LENGTH} characters).")
    return None


def parse(inner: str) -> Directive:
    """Return the directive written as `SCENARIO key=value ...` (the part between the brackets)."""
    words = inner.split()
    if not words or not _WORD.match(words[0]):
        raise DirectiveError(f"A directive is [[sim: SCENARIO key=value ...]]; got {inner.strip()[:80]!r}.")
    options: dict[str, Value] = {}
    for word in words[1:]:
        key, equals, raw = word.partition("=")
        option = OPTIONS.get(key)
        if option is None or not equals:
            raise DirectiveError(f"Unknown option {word[:80]!r}; known options: {', '.join(OPTIONS)}.")
        try:
            options[key] = option.read(raw)
        except ValueError as error:
            problem = str(error) if "must be" in str(error) else "must be a number"
            raise DirectiveError(f"Option {key}={raw[:80]!r} {problem}.") from None
    return Directive(words[0].lower().replace("-", "_"), options)


def _show(value: Value) -> str:
    match value:
        case bool():
            return str(int(value))
        case float():
            return repr(value)
        case _:
            return str(value)
