"""Writes the fake model's text: deterministic words, padding.

Pure. It never repeats any of the prompt; only the prompt's length chooses where the text starts.
"""

from __future__ import annotations

from itertools import islice

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
