"""Searches an error for its code, in known places of known shapes, wherever the error came from.

The one search for HTTP bodies, error frames, terminal events, chat chunks and polled snapshots. It reads `code`,
`type`, `param` and `reason` of error objects, errors nested in errors, bodies quoted in a message (see `embedded`) and
the results of a content filter (Azure). Prose is never read for a verdict. Pure; limited in depth and size.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from worker.jobs.record import Misalignment
from worker.safety.codes import (
    BLOCK,
    GENERIC,
    INVALID_REQUEST_CODES,
    KNOWN,
    NOTHING,
    SUSPECT,
    UNKNOWN,
    code_of,
    lookup,
    normalize_code,
    rank,
)
from worker.safety.provider_message import MAX_EXACT
from worker.safety.stream import ProviderProblem
from worker.upstream.call_outcome import outcome_code
from worker.upstream.embedded import MAX_TEXT, find_errors, parse_full
from worker.upstream.response_details import begins_like_block, misalignment_of, moderation_blocked
from worker.upstream.retry_after import delay_in_message
from worker.upstream.tolerant_fields import mapping, text

_MAX_DEPTH: Final = 12
_MAX_OBJECTS: Final = 400
_MAX_ITEMS: Final = 64
_MAX_NUMBER: Final = 10**15
_NO_ERROR_WORDS: Final = frozenset({"", "0", "null", "none", "ok", "success"})

_CODE_KEYS: Final = ("code", "error_code", "errorCode")
_POSSIBLE_CODE_KEYS: Final = ("reason", "status", "error_type", "name", "id", "value", "key")
"""Fields that name a code in some shapes and something else in others: only a known code counts."""
_ERROR_KEYS: Final = (
    "error", "errors", "incomplete_details", "innererror", "innerError", "inner_error", "detail", "details",
    "status_details", "last_error", "cause", "body", "data", "provider_specific_fields", "misalignment", "extensions",
)  # fmt: skip
"""Fields of an error that hold another one: an object, a list, a bare code, or a text that quotes a body."""
_PROSE_KEYS: Final = ("message", "msg", "title")
"""Fields that are prose: only the JSON that they quote counts, not even a word that is a code."""
_CONTAINERS: Final = (dict, list)
_RESPONSE_ERROR_KEYS: Final = ("error", "errors", "incomplete_details", "status_details", "last_error")
_FILTER_KEYS: Final = ("content_filter_result", "content_filter_results", "content_filters", "prompt_filter_results")


_PROVIDER_ITEMS: Final = ("message", "reasoning")


class _Found(NamedTuple):
    """The fields of one error object, unchanged."""

    code: str | None
    type: str | None = None
    param: str | None = None
    quoted: bool = False  # it was quoted in another error's text

    @property
    def weight(self) -> tuple[int, bool]:
        """Return how much the code tells."""
        return rank(code_of(ProviderProblem(self.code, self.type))), bool(self.code or self.type)


class _Search:
    """One walk through an error; every limit applies to the full walk."""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._objects, self._characters = _MAX_OBJECTS, MAX_TEXT
        self._named = NOTHING  # how much the errors around what is searched tell of their cause
        self._misalignment: Misalignment | None = None

    def search_error(self, value: object, depth: int = 0, *, quoted: bool = False) -> None:
        """Collect the codes of an error and of the errors in it, outermost first."""
        self._objects -= 1
        if self._objects < 0 or depth > _MAX_DEPTH:
            return
        if type(value) is str:
            self._search_word(value, depth, quoted=quoted)
        elif type(value) is list:
            for item in value[:_MAX_ITEMS]:
                self.search_error(item, depth + 1, quoted=quoted)
        elif type(value) is dict:
            self._search_object(value, depth, quoted=quoted)

    def search_response(self, data: dict[str, Any], depth: int = 0, *, quoted: bool = False) -> None:
        """Collect the codes of the errors in a response; its other fields are the app's or the model's."""
        for key in _RESPONSE_ERROR_KEYS:
            if data.get(key) is not None:
                self.search_error(data[key], depth + 1, quoted=quoted)
        output = data.get("output")
        for item in output[:_MAX_ITEMS] if type(output) is list else ():
            self.search_error(item_error(item), depth + 1, quoted=quoted)
        self._search_siblings(data, quoted=quoted)

    def _search_word(self, value: str, depth: int, *, quoted: bool) -> None:
        """Search an error that is a string: a known code, or a text."""
        if _is_known(value):
            self.found.append(_Found(value, quoted=quoted))
        else:
            self._search_text(value, depth)

    def _search_object(self, data: dict[str, Any], depth: int, *, quoted: bool) -> None:
        kind, param = _code_text(data.get("type")), _code_text(data.get("param")) or _field(data.get("loc"))
        kind = None if kind == "error" else kind  # the name of the event, or of the envelope (Anthropic)
        code = _code_in(data)
        named_around = self._named
        self._named = max(self._named, _cause_rank(code or _code_in(mapping(data.get("error"))), kind))
        if code or kind or param:
            self.found.append(_Found(code, kind, param, quoted))
        self._misalignment = self._misalignment or misalignment_of(data.get("misalignment"))
        for key in _POSSIBLE_CODE_KEYS:
            word = _code_text(data.get(key))
            if word is not None and _is_known(word):
                self.found.append(_Found(word, kind, param, quoted))
        if param is not None and _is_known(param, BLOCK):
            self.found.append(_Found(param, kind, None, quoted))
        self._search_siblings(data, quoted=quoted)
        for inner in _inner_errors(data):
            self.search_error(inner, depth + 1, quoted=quoted)
        for response in _objects(data.get("response")):
            self.search_response(response, depth + 1, quoted=quoted)
        raw = mapping(data.get("metadata")).get("raw")  # OpenRouter: the body that its own provider answered with
        if type(raw) is dict or type(raw) is list:
            self.search_error(raw, depth + 1, quoted=True)
        for message in (*(data.get(key) for key in _PROSE_KEYS), raw):
            if type(message) is str:
                self._search_text(message, depth)
        self._named = named_around

    def _search_text(self, value: str, depth: int) -> None:
        """Search the body that a text is, or those that it quotes; in prose only a body with an error counts.

        An error that names its own cause may quote the prompt: nothing in its texts counts. Of one with an unknown code
        only a text counts that is a body from end to end.
        """
        if self._named >= KNOWN:
            return
        value = value[: max(0, self._characters)]
        self._characters -= len(value)
        if "{" not in value:
            return
        full = parse_full(value)
        if full is None and self._named >= UNKNOWN:
            return
        for data in find_errors(value) if full is None else [full]:
            self.search_error(data, depth + 1, quoted=True)

    def _search_siblings(self, data: dict[str, Any], *, quoted: bool) -> None:
        """Search the fields beside errors: the results of a content filter, the outcome of the call."""
        if (code := outcome_code(data)) is not None:
            self.found.append(_Found(code, quoted=quoted))
        if any(_is_withheld(data.get(key)) for key in _FILTER_KEYS):
            self.found.append(_Found("content_filter", quoted=quoted))
        if moderation_blocked(data):
            self.found.append(_Found("content_filter", quoted=quoted))

    def problem(self, message: str | None, *, mentions_access: bool) -> ProviderProblem:
        """Return what was found: the code that tells most, and among equals the outermost."""
        best = max(self.found, key=lambda found: found.weight, default=_Found(None))
        words = [word for one in self.found for word in (one.code, one.type, one.param) if word]
        return ProviderProblem(
            code=best.code,
            type=best.type,
            param=best.param or next((found.param for found in self.found if found.param), None),
            retry_after=delay_in_message(message) if message else None,
            message=text(message, MAX_EXACT),
            mentions_access=mentions_access or any("access_program" in word for word in words),
            quoted=any(found.quoted for found in self.found),
            misalignment=self._misalignment,
            worded_as_block=begins_like_block(message),
        )


def problem_of(value: object) -> ProviderProblem:
    """Return the problem of an error: an object, a list, a bare string, or the body or frame around them."""
    search = _Search()
    search.search_error(value)
    return search.problem(_message(value), mentions_access=_names_program(value))


def problem_in(snapshot: dict[str, Any], frame: dict[str, Any] | None = None) -> ProviderProblem | None:
    """Return the problem of a response and of the event that brought it, or None if they report no error.

    The response's own error comes first; the event's own `type` is no code.
    """
    search = _Search()
    search.search_response(snapshot)
    around = {} if frame is None else {key: value for key, value in frame.items() if key not in ("type", "response")}
    search.search_error(around)
    message = _message(snapshot.get("error")) or _message(around)
    error = snapshot.get("error")
    if not search.found and message is None and not error:
        return None
    return search.problem(message, mentions_access=_names_program(error))


def item_error(item: object) -> object:
    """Return the error of an output item if it is the provider's: that of a tool is the tool's own."""
    data = mapping(item)
    return data.get("error") if data.get("type") in _PROVIDER_ITEMS else None


def is_block(problem: ProviderProblem | None) -> bool:
    """Return whether an error's code is one of a block, known or by its form."""
    return rank(code_of(problem)) >= SUSPECT


def is_empty_error(error: object) -> bool:
    """Return whether an error is empty, as of a server that always sends it: `{}`, `{"code": 0, "message": ""}`."""
    for _ in range(_MAX_DEPTH):
        if type(error) is not dict:
            break
        rest = [value for value in error.values() if not _is_empty(value)]
        if len(rest) != 1 or type(rest[0]) is not dict:
            return not rest
        error = rest[0]
    return _is_empty(error)


def _is_empty(value: object) -> bool:
    return not value or (type(value) is str and value.strip().lower() in _NO_ERROR_WORDS)


def _is_known(word: str, minimum: int = KNOWN) -> bool:
    """Return whether a word is a known code; with spaces in it, it may be a sentence."""
    return " " not in word.strip() and rank(lookup(normalize_code(word) or "")) >= minimum


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in (value[:_MAX_ITEMS] if type(value) is list else [value]) if type(one) is dict]


def _inner_errors(data: dict[str, Any]) -> list[object]:
    """Return the errors inside an error object; a code, a type or a message that is an object is one too."""
    inner = [data[key] for key in _ERROR_KEYS if data.get(key) is not None]
    return inner + [
        data[key]
        for key in (*_CODE_KEYS, "type", "param", "reason", *_PROSE_KEYS)
        if type(data.get(key)) in _CONTAINERS
    ]


def _code_in(data: dict[str, Any]) -> str | None:
    """Return the code of an error object, or None."""
    return next((word for key in _CODE_KEYS if (word := _code_text(data.get(key))) is not None), None)


def _cause_rank(code: str | None, kind: str | None) -> int:
    """Return how much an error tells of its own cause; "invalid request" tells nothing, nor does an unknown type."""
    found, typed = (code_of(ProviderProblem(word, None)) for word in (code, kind))
    named = GENERIC if found is not None and found.name in INVALID_REQUEST_CODES else rank(found)
    return max(named, rank(typed) if rank(typed) >= KNOWN else NOTHING)


def _code_text(value: object) -> str | None:
    """Return a code as a string; a number is one too, because gateways repeat the HTTP status there."""
    if type(value) is int:
        return str(value) if -_MAX_NUMBER < value < _MAX_NUMBER else None
    return text(value)


def _field(place: object) -> str | None:
    """Return the field that a validation error of FastAPI is about: the last name in its `loc`."""
    names = [name for name in place[:_MAX_ITEMS] if type(name) is str] if type(place) is list else []
    return text(names[-1]) if names else None


def _is_withheld(value: object) -> bool:
    """Return whether the results of a content filter say that something was filtered or blocked (Azure OpenAI)."""
    pending = [value]
    for _ in range(_MAX_ITEMS):
        if not pending:
            return False
        at = pending.pop()
        if type(at) is dict:
            if at.get("filtered") is True or at.get("blocked") is True:
                return True
            pending += [inner for inner in list(at.values())[:_MAX_ITEMS] if type(inner) in (dict, list)]
        elif type(at) is list:
            pending += at[:_MAX_ITEMS]
    return False


def _message(value: object) -> str | None:
    """Return the message of the outermost error that has one: shown to the app only."""
    for _ in range(4):
        if type(value) is list:
            value = value[0] if value else None
        if type(value) is str:
            return value or None
        data = mapping(value)
        message = data.get("message") or data.get("msg")
        if type(message) is str:
            return message
        value = next((data[key] for key in ("error", "detail", "response") if data.get(key)), None)
    return None


def _names_program(value: object) -> bool:
    """Return whether a field of the error is named after an access program."""
    data = mapping(value)
    inner = data.get("error")
    return any("access_program" in key for key in [*data, *mapping(inner)][: 2 * _MAX_ITEMS] if type(key) is str)
