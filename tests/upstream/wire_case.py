"""Reads a wire case from a TOML file: what a provider sends, byte for byte, and the expected result of the job.

Strict: a key that nobody knows is an error, so that a misspelt expectation can't pass for ever.
"""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

WIRES = Path(__file__).parent / "wires"
Mode = Literal["background", "stream", "chat"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Answer(_Strict):
    """The answer to one request."""

    status: int = 200
    headers: dict[str, str] = {}
    body: str | None = None
    chunks: list[str] | None = None
    base64: str | None = None
    end: Literal["complete", "cut", "hang"] = "complete"
    delay: float = 0.0
    """Seconds before the status line."""
    pause: float = 0.0
    """Seconds between two chunks."""

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if sum(given is not None for given in (self.body, self.chunks, self.base64)) > 1:
            raise ValueError("an answer has a body, or chunks, or base64")
        return self

    @property
    def pieces(self) -> list[bytes]:
        """The body as it is flushed, piece by piece."""
        if self.base64 is not None:
            return [base64.b64decode(self.base64)]
        return [piece.encode() for piece in self.chunks or ([self.body] if self.body else [])]


class Submitted(_Strict):
    """What is submitted to Vigil, if it differs from the default."""

    model: str = "gpt-5.6-sol"
    params: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    store: bool = True


class Expect(_Strict):
    """The expected result of the job; only given fields are compared."""

    status: str
    reason: str | None = None
    outcomes: list[str] | None = None
    flags: list[str] | None = None
    """Each of them is a flag of the last attempt."""
    code: str | None = None
    error: str | None = None
    category: str | None = None
    carrier: str | None = None
    after_output: bool | None = None
    text: str | None = None
    refusal: str | None = None
    calls: list[list[str]] | None = None
    """[name, arguments] of each function call in the output, in order."""
    usage: dict[str, int] | None = None
    """Some of the tokens of the last attempt; an empty table: none are known."""
    waits: list[float] | None = None
    """Seconds for which the job was put off after each attempt, at least; they cost the test no time."""
    creates: int | None = None
    looks: int | None = None
    cancels: int | None = None
    resumed: int | None = None
    quarantine_counts: bool | None = None


class Case(_Strict):
    """The content of a file."""

    about: str = Field(min_length=20)
    modes: list[Mode] = Field(min_length=1)
    answer: list[Answer] = Field(min_length=1)
    look: list[Answer] = []
    cancel: list[Answer] = []
    job: Submitted = Submitted()
    expect: Expect


def every_case() -> list[tuple[Path, Mode]]:
    """Return each file in each of its modes."""
    return [(path, mode) for path in sorted(WIRES.glob("*/*.toml")) for mode in read(path).modes]


def read(path: Path) -> Case:
    """Return the case of a file; an error names the file."""
    try:
        return Case.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path.relative_to(WIRES)}: {error}") from None
