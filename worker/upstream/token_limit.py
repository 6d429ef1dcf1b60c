"""Learns from refusals under which name a chat server takes the token limit.

`max_completion_tokens` is OpenAI's name, `max_tokens` the one that it replaces. Servers that know one of them ignore
the other (and exceed the limit), refuse it, or refuse both together. So both are sent, except to OpenAI; a refusal that
names either changes what the next attempt sends for that model. A refused request has not run.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

NEW: Final = "max_completion_tokens"
OLD: Final = "max_tokens"
BOTH: Final = (NEW, OLD)
_REFUSALS: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_NEW_ONLY_HOSTS: Final = (".openai.com", ".openai.azure.com")
_MAX_MODELS: Final = 1000


class TokenLimit:
    """The names that one server accepts, by model."""

    def __init__(self, base_url: str) -> None:
        host = f".{urlsplit(base_url).hostname or ''}"
        self._usual: tuple[str, ...] = (NEW,) if host.endswith(_NEW_ONLY_HOSTS) else BOTH
        self._tried: dict[str, list[tuple[str, ...]]] = {}

    def names(self, model: str) -> tuple[str, ...]:
        """Return the names under which the limit is sent."""
        tried = self._tried.get(model)
        return tried[-1] if tried else self._usual

    def refused(self, model: str, status: int, body: bytes) -> bool:
        """Record a refusal; return whether the next request for `model` will use another name."""
        new, old = NEW.encode() in body, OLD.encode() in body
        if status not in _REFUSALS or not (new or old):
            return False
        tried = self._tried.setdefault(model, [self._usual])
        wanted = [(OLD,), (NEW,)] if new and not old else [(NEW,), (OLD,)]
        left = [names for names in wanted if names not in tried]
        if not left or len(self._tried) > _MAX_MODELS:
            del self._tried[model]  # it is not the name
            return False
        tried.append(left[0])
        return True
