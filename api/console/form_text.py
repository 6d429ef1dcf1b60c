"""Reads the texts that people write into forms."""

from __future__ import annotations

from api.console.visit import Form
from api.web.problems import Problem


def required_text(form: Form, name: str, most: int, *, lines: bool = False) -> str:
    """Return a text of the form; raise a Problem (422) for one that is missing, too long or not printable."""
    text = form.text(name)
    printable = all(part.isprintable() for part in (text.splitlines() if lines else [text]))
    if not text.strip() or len(text) > most or not printable:
        detail = f"{name} must be 1 to {most} characters without control characters."
        raise Problem(422, "validation_error", detail)
    return text


def optional_text(form: Form, name: str, most: int, *, lines: bool = False) -> str:
    """Return a text of the form, or "" for one that is missing; raise a Problem (422) as `required_text` does."""
    return required_text(form, name, most, lines=lines) if form.text(name, "").strip() else ""
