"""Writes the fake model's text: deterministic words, a minimal value for a JSON schema, padding.

Pure. It never repeats any of the prompt; only the prompt's length chooses where the text starts.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

_SENTENCES = (
    "The harbour wakes slowly, and the first boats leave while the light is still soft.",
    "A good queue is like a patient host: nobody is lost and nobody is served twice.",
    "On the hill the old clock keeps its own time, and the town has learned to like it.",
    "Bread rises best in a warm kitchen where someone hums without noticing.",
    "When the rain stopped, the path through the orchard smelled of apples and stone.",
    "Small steps, taken every day, carry a person further than one great leap.",
    "The librarian smiled, stamped the card and wished the traveller a quiet evening.",
    "Far out, a lighthouse answered the dusk with its slow and faithful turning.",
    "They built the bridge from both banks and met in the middle with a song.",
    "Every map leaves something out, and that is where the walk becomes interesting.",
)
_WORDS = tuple(f"{word} " for sentence in _SENTENCES for word in sentence.split())
_STARTS = tuple(i for i, word in enumerate(_WORDS) if i == 0 or _WORDS[i - 1].endswith(". "))
REFUSAL = ("Sorry, ", "I ", "can't ", "help ", "with ", "that.")
_MAX_DEPTH = 20
_MAX_VALUES = 10_000
PADDING = ("p3X", "q81", "k2", "Zt90a", "m", "v7Qe2d", "0fR", "hY4b")


def words(length: int, count: int) -> list[str]:
    """Return `count` tokens of text for a prompt of that length, the same for the same arguments."""
    start = _STARTS[length % len(_STARTS)]
    whole, rest = divmod(count, len(_WORDS))
    turned = _WORDS[start:] + _WORDS[:start]
    out = list(turned) * whole + list(islice(turned, rest))
    if out:
        out[-1] = out[-1].rstrip(" .,:") + "."
    return out


def pieces(text: str, size: int = 6) -> list[str]:
    """Return the text cut into tokens of a few characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def sample(schema: Any) -> Any:
    """Return a small value that satisfies an ordinary JSON schema; $ref isn't followed.

    It has at most _MAX_VALUES values, however often a schema says that something is required.
    """
    return _Sampler().value(schema, 0)


class _Sampler:
    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._left < 0:
            return {}
        if "const" in schema:
            return schema["const"]
        for several in ("anyOf", "oneOf", "allOf"):
            if isinstance(schema.get(several), list) and schema[several]:
                return self.value(schema[several][0], depth + 1)
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "array":
            least = schema.get("minItems")
            count = min(least, self._left) if isinstance(least, int) else 0
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]
        if kind in ("integer", "number"):
            least = schema.get("minimum")
            return least if isinstance(least, (int, float)) else 1
        simple: dict[Any, Any] = {"string": "ok", "boolean": True, "null": None}
        return simple[kind] if isinstance(kind, str) and kind in simple else self._object(schema, depth)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties"), schema.get("required")
        properties = properties if isinstance(properties, dict) else {}
        names = [name for name in (required if isinstance(required, list) else properties) if isinstance(name, str)]
        found: dict[str, Any] = {}
        for name in dict.fromkeys(names):
            if self._left <= 0:
                break
            found[name] = self.value(properties.get(name, {"type": "string"}), depth + 1)
        return found
