"""Reads what a response reports beside its answer: removed input, moderation results, the signal of a check.

Pure and tolerant: a field of the wrong type is left out. Only words that look like codes and ids are kept, because the
rest may quote content. Facts: wire.md section 2.1, wire-news sections 1.1, 1.2 and 1.4.
"""

from __future__ import annotations

import re
from typing import Any, Final

from worker.jobs.record import InputTransformation, Misalignment
from worker.safety.codes import normalize_code
from worker.upstream.tolerant_fields import mapping, text

_MAX_TRANSFORMATIONS: Final = 64
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_BLOCKED_WORDS: Final = frozenset({"block", "blocked", "withheld"})
_SIDES: Final = ("input", "output")
_MAX_RESULTS: Final = 16
_FILTER_RESULTS: Final = ("content_filter_results", "content_filter_result")
_FILTER_LISTS: Final = ("content_filters", "prompt_filter_results")
_FILTER_NAMES: Final = frozenset((*_FILTER_RESULTS, *_FILTER_LISTS, "moderation"))
UNFILTERED: Final = "unfiltered"
"""The flag of an attempt whose answer came although the provider's safety filter did not run."""

_BLOCKED_PREFIXES: Final = (
    "this request was blocked by our safety system",
    "this request has been blocked by our safety system",
    "your request was blocked by our safety system",
    "your request was rejected by our safety system",
    "your request was rejected as a result of our safety system",
    "this content can't be shown",
    "this content was flagged",
    "this request was flagged",
    "your prompt was flagged",
    "invalid prompt: your prompt was flagged",
    "this user's access to this model has been temporarily limited",
    "this user's access to this model has been limited",
)
"""How the provider's messages begin whose code a proxy lost. They stop a retry and prove nothing: copy is reworded."""
_LEADING_NAME: Final = re.compile(r"(?:[a-z]+ )?error: ")  # "Codex error: …", as clients and proxies put before it
_MAX_PREFIX: Final = 200


def buffering_object(kind: str, data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Return the object that signals a check, or None: forms S1-S4 of wire.md section 2.1.

    A value that is no object says nothing, and `"enabled": false` says that there is no check.
    """
    if "safety_buffering" in data:
        fields = data["safety_buffering"]  # at top level it wins over every other form, even when it says nothing
    elif metadata.get("type") == "safety_buffering":
        fields = metadata
    elif kind == "response.safety_buffering":
        fields = data
    else:
        fields = mapping(data.get("response")).get("safety_buffering")
    return fields if type(fields) is dict and fields.get("enabled") is not False else None


def input_transformations(snapshot: dict[str, Any]) -> tuple[InputTransformation, ...]:
    """Return the items of the input that the provider changed by itself, as a response lists them."""
    rows = snapshot.get("input_transformations")
    found: list[InputTransformation] = []
    for row in rows[:_MAX_TRANSFORMATIONS] if type(rows) is list else ():
        action = _word(mapping(row).get("action"))
        if action is not None:
            name = text(row.get("id"))
            found.append(
                InputTransformation(
                    action=action,
                    type=_word(row.get("type")),
                    reason=_word(row.get("reason")),
                    id=name if name is not None and _ID.fullmatch(name) else None,
                )
            )
    return tuple(found)


def misalignment_of(value: object) -> Misalignment | None:
    """Return the content-free parts of an error's `misalignment` object; its texts may describe the request."""
    data = mapping(value)
    target = text(data.get("review_target"))
    found = Misalignment(
        error_type=_word(data.get("error_type")),
        review_target=target if target is not None and _ID.fullmatch(target) else None,
    )
    return found if found.error_type or found.review_target else None


def moderation_blocked(response: dict[str, Any]) -> bool:
    """Return whether the moderation results of a response or a completion say that content was withheld.

    A result that only scores or flags is no block. One is, if it says so itself, or if it flags what was asked to be
    blocked (`mode: block`) in a response that failed or was cut short: what is delivered was let pass.
    """
    moderation = mapping(response.get("moderation"))
    if not moderation:
        return False
    policy = mapping(moderation.get("policy"))
    ended_badly = response.get("status") in ("failed", "incomplete")
    for side in _SIDES:
        results = moderation.get(side)
        mode = mapping(policy.get(side)).get("mode")
        for result in results[:_MAX_RESULTS] if type(results) is list else [results]:
            if type(result) is not dict or result.get("type") == "error":
                continue  # a moderation that failed has withheld nothing
            if result.get("blocked") is True or any(
                _word(result.get(key)) in _BLOCKED_WORDS for key in ("action", "decision", "outcome", "status")
            ):
                return True
            if result.get("flagged") is True and "block" in (mode, result.get("mode")) and ended_badly:
                return True
    return False


def is_unfiltered(holder: dict[str, Any]) -> bool:
    """Return whether a response, a completion's chunk or one of its choices says that its safety filter did not run.

    Azure's filter may be down or late: the answer comes all the same, and where its results would be is an error, under
    the plural name or the singular one. Moderation that failed says so by its type.
    """
    if _FILTER_NAMES.isdisjoint(holder):
        return False
    for name in _FILTER_RESULTS:
        if mapping(mapping(holder.get(name)).get("error")):
            return True
    for name in _FILTER_LISTS:
        rows = holder.get(name)
        if any(is_unfiltered(row) for row in (rows[:_MAX_RESULTS] if type(rows) is list else ()) if type(row) is dict):
            return True
    moderation = mapping(holder.get("moderation"))
    for side in _SIDES if moderation else ():
        results = moderation.get(side)
        rows = results[:_MAX_RESULTS] if type(results) is list else [results]
        if any(type(row) is dict and row.get("type") == "error" for row in rows):
            return True
    return False


def begins_like_block(message: str | None) -> bool:
    """Return whether a message begins like those of blocks.

    Never a verdict, because messages are reworded and translated (wire.md section 3): it only stops a retry.
    """
    words = " ".join((message or "")[:_MAX_PREFIX].replace("\u2019", "'").lower().split())
    return _LEADING_NAME.sub("", words, count=1).startswith(_BLOCKED_PREFIXES)


def _word(value: object) -> str | None:
    """Return a word of the protocol, or None for anything that may be prose."""
    return normalize_code(value) if type(value) is str else None
