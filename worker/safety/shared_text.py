"""Finds what a short text shares with long ones: eight words in a row, forty characters, or a distinctive name.

A distinctive name has letters and digits and at least twelve characters (an identifier, a password, an address): one
of them is enough to give a request away, and no ordinary sentence of a provider holds one.

Case, accents, the amount of whitespace and invisible characters make no difference, nor do the escapes of JSON and HTML
in the short text. Linear in both: the windows of the short text are looked up while the long one is read in half-window
steps, and only around a hit at every position. Pure.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

WORDS: Final = 8
CHARACTERS: Final = 40
_NAME: Final = re.compile(r"\w[\w.@:/+-]{10,}\w")
_WORD: Final = re.compile(r"\w+(?:['\u2019]\w+)*")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\["
    r'\\"/bfnrt\']|&(?:\#[0-9]{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8});'
)
_SHORT_ESCAPES: Final = {"b": " ", "f": " ", "n": "\n", "r": "\r", "t": "\t"}
_DROPPED: Final = frozenset({"Mn", "Me", "Cf", "Cc"})
_CONTROLS: Final = dict.fromkeys([*range(9), *range(14, 28), 127])
_MAX_EXTENSION: Final = 64  # characters by which a run is extended to the ends of its first and last word


class Run(NamedTuple):
    """A part of the short text, by its first character and the one after its last."""

    start: int
    end: int


class _Folded(NamedTuple):
    """The characters that are compared, and for each of them where it stands in the original."""

    text: str
    starts: list[int]
    ends: list[int]


def shared_runs(short: str, sources: Iterable[str]) -> list[Run]:
    """Return the runs of `short` that it shares with any of the sources, in order, extended to whole words."""
    variants = [_fold_with_places(short, escaped=False)]
    if _ESCAPE.search(short):
        variants.append(_fold_with_places(short, escaped=True))
    marks = bytearray(len(short))
    searches = [search for one in variants for search in _searches(one)]
    for source in sources:
        folded = _fold(source)
        words = folded.split()
        forms: dict[str, Sequence[Any]] = {"spaced": " ".join(words), "solid": "".join(words)}
        forms["words"] = tuple(_WORD.findall(folded))
        forms["names"] = _names(folded)
        for form, search in searches:
            search.read(forms[form])
    for _, search in searches:
        search.mark(marks)
    return _extended(short, _runs(marks))


def cut(short: str, runs: Iterable[Run], replacement: str) -> str:
    """Return `short` with each run replaced."""
    out, at = list[str](), 0
    for run in runs:
        out += [short[at : run.start], replacement]
        at = run.end
    return "".join([*out, short[at:]])


class _Search:
    """The windows of one form of the short text, and which of them a source has."""

    def __init__(self, units: Sequence[Any], starts: list[int], ends: list[int], size: int) -> None:
        self._units, self._starts, self._ends, self._size, self._step = units, starts, ends, size, size // 2
        self._windows = {units[at : at + size] for at in range(len(units) - size + 1)}
        # a run of `size` has a part of half that size which begins at a multiple of it
        self._parts = {units[at : at + self._step] for at in range(len(units) - self._step + 1)}
        self._found: set[Any] = set()

    def read(self, source: Sequence[Any]) -> None:
        """Collect the windows that the source has."""
        size, step, parts, windows = self._size, self._step, self._parts, self._windows
        if not windows:
            return
        compared, last = 0, len(source) - size
        for at in range(0, len(source) - step + 1, step):
            if source[at : at + step] in parts:
                for first in range(max(compared, at + step - size), min(at, last) + 1):
                    window = source[first : first + size]
                    if window in windows:
                        self._found.add(window)
                compared = at + 1

    def mark(self, marks: bytearray) -> None:
        """Mark the characters of every window that was found."""
        until = 0
        for at in range(len(self._units) - self._size + 1) if self._found else ():
            if self._units[at : at + self._size] in self._found:
                start, end = max(until, self._starts[at]), self._ends[at + self._size - 1]
                marks[start:end] = b"\x01" * max(0, end - start)
                until = max(until, end)


class _NameSearch:
    """The distinctive names of the short text, and which of them a source has."""

    def __init__(self, folded: _Folded) -> None:
        self._folded, self._found = folded, set[str]()

    def read(self, source: Sequence[Any]) -> None:
        """Collect the names that the source has."""
        self._found |= set(source) & set(_names(self._folded.text))

    def mark(self, marks: bytearray) -> None:
        """Mark the characters of every name that was found."""
        for match in _NAME.finditer(self._folded.text):
            if match.group() in self._found:
                start, end = self._folded.starts[match.start()], self._folded.ends[match.end() - 1]
                marks[start:end] = b"\x01" * (end - start)


def _names(folded: str) -> list[str]:
    return [name for name in _NAME.findall(folded) if any(map(str.isdigit, name)) and any(map(str.isalpha, name))]


def _searches(folded: _Folded) -> list[tuple[str, _Search | _NameSearch]]:
    text, starts, ends = folded
    found = list(_WORD.finditer(text))
    words = tuple(match.group() for match in found)
    word_starts = [starts[match.start()] for match in found]
    word_ends = [ends[match.end() - 1] for match in found]
    kept = [at for at, c in enumerate(text) if not c.isspace()]
    spaced = [at for at, c in enumerate(text) if not c.isspace() or (at and not text[at - 1].isspace())]
    return [
        ("words", _Search(words, word_starts, word_ends, WORDS)),
        ("names", _NameSearch(folded)),
        *(
            (form, _Search("".join(_unspaced(text[at]) for at in places), *_places(folded, places), CHARACTERS))
            for form, places in (("spaced", spaced), ("solid", kept))
        ),
    ]


def _unspaced(character: str) -> str:
    return " " if character.isspace() else character


def _places(folded: _Folded, places: list[int]) -> tuple[list[int], list[int]]:
    return [folded.starts[at] for at in places], [folded.ends[at] for at in places]


def _fold(text: str) -> str:
    """Return the text without differences of case, accents, width and invisible characters."""
    if text.isascii():
        return text.lower().translate(_CONTROLS)
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join([c for c in plain if c.isspace() or unicodedata.category(c) not in _DROPPED])


def _fold_with_places(text: str, *, escaped: bool) -> _Folded:
    """Fold the text character by character; `escaped`: an escape counts as the character that it stands for."""
    characters, starts, ends = list[str](), list[int](), list[int]()
    at = 0
    while at < len(text):
        match = _ESCAPE.match(text, at) if escaped and text[at] in "\\&" else None
        end = match.end() if match else at + 1
        for c in _fold(_unescaped(match.group()) if match else text[at]):
            characters.append(c)
            starts.append(at)
            ends.append(end)
        at = end
    return _Folded("".join(characters), starts, ends)


def _unescaped(escape: str) -> str:
    if escape[0] == "&":
        return html.unescape(escape)
    if escape[1] != "u":
        return _SHORT_ESCAPES.get(escape[1], escape[1])
    units = [int(part, 16) for part in escape.split("\\u")[1:]]
    data = b"".join(unit.to_bytes(2, "big") for unit in units)
    return data.decode("utf-16-be", "surrogatepass")


def _runs(marks: bytearray) -> list[Run]:
    return [Run(*match.span()) for match in re.finditer(rb"\x01+", marks)]


def _extended(text: str, runs: list[Run]) -> list[Run]:
    """Extend each run to the ends of its words, and join those with nothing but punctuation between them."""
    out: list[Run] = []
    for begin, stop in runs:
        shared = text[begin:stop]
        start = begin + len(shared) - len(shared.lstrip())
        end = stop - len(shared) + len(shared.rstrip())
        start -= _word_length(reversed(text[max(0, start - _MAX_EXTENSION) : start]))
        end += _word_length(text[end : end + _MAX_EXTENSION])
        if out and not any(c.isalnum() for c in text[out[-1].end : start]):
            out[-1] = Run(out[-1].start, max(out[-1].end, end))
        else:
            out.append(Run(start, end))
    return out


def _word_length(characters: Iterable[str]) -> int:
    """Return the number of characters up to the first space; 0 if there is none within reach, as in Chinese."""
    count = 0
    for c in characters:
        if c.isspace():
            return count
        count += 1
    return count if count < _MAX_EXTENSION else 0
