"""Find what a request would have the provider open: state that the provider keeps by name, and addresses. Pure.

A provider account serves several apps of Vigil, and a provider resolves a name for whoever uses the account: a response
to continue, a conversation, a stored prompt, files, vector stores, containers. So names of state are found wherever a
provider would look one up; a field that Vigil does not know counts as one when its name ends in `id`. What an answer
says of itself (annotations, results, an id beside content) may be sent back, as may what a function's schema names.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal, NamedTuple

Path = tuple[str | int, ...]
Kind = Literal["", "word", "label", "id", "url", "host"]


class StateReference(NamedTuple):
    """A name of state that the provider keeps; `name` is None where it is no text."""

    path: Path
    name: str | None


class AddressReference(NamedTuple):
    """An address that the provider may open: a URL, or text that may be a URL or a host (`is_url` False)."""

    path: Path
    text: str
    is_url: bool = True


class References(NamedTuple):
    """All references of a request, in no particular order."""

    names: list[StateReference]
    addresses: list[AddressReference]


_MAX_FOUND: Final = 200
"""Of each kind; a request that has so many is refused for one of them anyway, or has too many addresses."""
_WORDS: Final = frozenset(
    {"conversation", "container", "thread", "assistant", "prompt", "cached_content", "cachedcontent", "vector_store"}
)
"""Fields that hold a name, or an object that may."""
_URL_TAILS: Final = ("url", "urls", "uri", "uris")
_HOST_TAILS: Final = (
    "href",
    "endpoint",
    "origin",
    "webhook",
    "callback",
    "host",
    "hostname",
    "proxy",
    "server",
    "address",
)
_LOWER_TAILS: Final = ("_id", "_ids", "-id", "-ids", *_URL_TAILS, *_HOST_TAILS)
_CAMEL_TAILS: Final = ("Id", "Ids", "ID", "IDs")
_HARMLESS: Final = frozenset(
    {"callid", "toolcallid", "approvalrequestid", "userid", "enduserid", "requestid", "clientrequestid", "traceid"}
    | {"spanid", "clientid", "organizationid", "projectid", "modelid", "badwordsids"}
)
"""Ends in `id`, and names nothing that a provider keeps for an account. Token ids are numbers of a vocabulary."""
_LABELS: Final = frozenset({"id", "type", "status", "object"})
_HOLDERS: Final = frozenset({"audio", "file", "reference", "source", "voice", "document", "skill", *_WORDS})
"""Objects in an input item whose `id` is a name, not the item's label."""
_TEXTS: Final = frozenset(
    {"text", "content", "description", "server_description", "instructions", "arguments", "code", "output", "input"}
    | {"name", "summary", "refusal", "query", "queries", "title", "definition", "pattern", "stop", "suffix", "system"}
    | {"value", "prompt", "quote", "authorization", "encrypted_content", "type", "role", "format", "enum", "const"}
)
"""Strings under these are text, in which the provider opens nothing."""
_OF_ANSWERS: Final = frozenset({"annotations", "results", "action", "actions", "sources", "logprobs"})
"""What an item of an earlier answer says of itself."""
ITEMS: Final = ("input", "instructions")
"""Params that hold input items."""
_SCHEMAS: Final = frozenset({"parameters", "schema", "input_schema", "output_schema"})
_FREE: Final = frozenset({"metadata", "client_metadata", "headers", "logit_bias"})
_SCHEME: Final = re.compile(r"(?i:https?|wss?):|[A-Za-z][A-Za-z0-9+.-]*:[\x00-\x20]*[/\\]{2}")
_LONGEST_SCHEME: Final = 40
_BLANKS: Final = "".join(map(chr, range(33)))
_NESTED: Final = frozenset({dict, list})


def find_references(params: dict[str, Any], items: Any, most_fields: int | None = None) -> References | None:
    """Return the references of a request's params and input, with paths that begin with `params` or `input`.

    What the params call `input` or `instructions` is searched like the input, also where Vigil passes its own instead.
    None when they have more than `most_fields` fields: the caller may have it done where it delays nobody.
    """
    search = _Search(most_fields)
    search.run({name: value for name, value in params.items() if name not in ITEMS}, ("params",), of_item=False)
    lists = [(("input",), items), *((("params", name), params.get(name)) for name in ITEMS)]
    for path, value in lists:
        if isinstance(value, list | dict):
            search.run(value, path, of_item=True)
    return None if search.over else search.found


class _Search:
    """One search, without recursion: a request may be deep. Its size bounds the work."""

    def __init__(self, most_fields: int | None) -> None:
        self.found, self.over = References([], []), False
        self._left = most_fields if most_fields is not None else -1

    def run(self, root: Any, path: Path, *, of_item: bool) -> None:
        stack: list[tuple[Any, Path]] = [(root, path)]
        names, addresses = self.found
        while stack and len(names) < _MAX_FOUND and len(addresses) < _MAX_FOUND:
            here, path = stack.pop()
            if self._left >= 0:
                self._left -= len(here)
                if self._left < 0:
                    self.over = True
                    return
            if type(here) is list:
                is_text = path[-1] in _TEXTS
                for number, value in enumerate(here):
                    if type(value) in _NESTED:
                        if value:
                            stack.append((value, (*path, number)))
                    elif not is_text and type(value) is str and _has_scheme(value):
                        addresses.append(AddressReference((*path, number), value))
            else:
                self._object(here, path, stack, of_item=of_item)

    def _object(self, here: dict[str, Any], path: Path, stack: list[tuple[Any, Path]], *, of_item: bool) -> None:
        for key, value in here.items():
            if value is None or value is True or value is False:
                continue
            kind = _kind_of(key)
            if kind and len(self.found.names) >= _MAX_FOUND:
                return
            if kind and self._record(kind, key, value, here, path, of_item=of_item):
                continue
            if type(value) in _NESTED:
                if value and not _is_own(key, here, path, of_item=of_item):
                    stack.append((value, (*path, key)))
            elif type(value) is str and key not in _TEXTS and _has_scheme(value):
                self.found.addresses.append(AddressReference((*path, key), value))

    def _record(self, kind: Kind, key: str, value: Any, here: dict[str, Any], path: Path, *, of_item: bool) -> bool:
        """Record the value of a field of this kind; return whether there is nothing more to search in it."""
        where = (*path, key)
        match kind:
            case "word":
                return self._word(key, value, where)
            case "label":
                if not of_item or _is_reference(here, path):
                    self._names(value, where)
                return type(value) is not dict
            case "id":
                self._names(value, where)
                return type(value) is not dict
            case _:
                return self._addresses(value, where, is_url=kind == "url")

    def _word(self, key: str, value: Any, where: Path) -> bool:
        if type(value) is dict:
            is_new = key.lower() == "container" and bool(value)  # a new one; what is put into it is searched
            if value.get("id") is None and not is_new:
                self.found.names.append(StateReference(where, None))
            return False
        if key.lower() != "prompt":  # a prompt that is text is one
            self._names(value, where)
        return type(value) is not list

    def _names(self, value: Any, where: Path) -> None:
        values = (
            [((*where, number), one) for number, one in enumerate(value)] if type(value) is list else [(where, value)]
        )
        for path, one in values[:_MAX_FOUND]:
            if one is not None and one != "":
                self.found.names.append(StateReference(path, one if type(one) is str else None))

    def _addresses(self, value: Any, where: Path, *, is_url: bool) -> bool:
        if type(value) is str:
            if value:
                self.found.addresses.append(AddressReference(where, value, is_url))
            return True
        if type(value) is list:
            texts = [(number, one) for number, one in enumerate(value) if type(one) is str and one]
            self.found.addresses.extend(AddressReference((*where, n), one, is_url) for n, one in texts[:_MAX_FOUND])
            return len(texts) == len(value)
        return type(value) is not dict


def _kind_of(key: str) -> Kind:
    """Return what the value of a field of this name is."""
    tail = key[-15:].lower()
    if tail in _WORDS:
        return "word"
    if tail in {"id", "ids"}:
        return "label"
    if not tail.endswith(_LOWER_TAILS) and not key.endswith(_CAMEL_TAILS):
        return ""
    if tail.endswith(_URL_TAILS):
        return "url"
    if tail.endswith(_HOST_TAILS):
        return "host"
    plain = key.replace("_", "").replace("-", "").lower()
    return "" if plain in _HARMLESS or plain.endswith(("tokenid", "tokenids")) else "id"


def _has_scheme(text: str) -> bool:
    return _SCHEME.match(text.lstrip(_BLANKS)[:_LONGEST_SCHEME]) is not None


def _is_reference(here: dict[str, Any], path: Path) -> bool:
    """Return whether the `id` of an object of the input has the provider put in what it keeps under it.

    An id beside content is a label. One that stands alone, or in an object that says so, is a reference.
    """
    if path[-1] in _HOLDERS or str(here.get("type", "")).lower().endswith("reference"):
        return True
    return not any(value is not None and key not in _LABELS for key, value in here.items())


def _is_own(key: str, here: dict[str, Any], path: Path, *, of_item: bool) -> bool:
    """Return whether a value names only what is the app's own: a function's schema, or what an answer said."""
    if key in _SCHEMAS:
        return isinstance(here.get("name"), str) or isinstance(here.get("type"), str)
    return key in _FREE or (of_item and len(path) > 1 and key in _OF_ANSWERS)


def is_shared(name: str | None, patterns: tuple[str, ...]) -> bool:
    """Return whether operators let every app use this name; a pattern may end in `*`."""
    if name is None:
        return "*" in patterns
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)


def pointer_of(path: Path) -> str:
    """Return the JSON pointer of a path."""
    return "".join("/" + str(step)[:64].replace("~", "~0").replace("/", "~1") for step in path)
