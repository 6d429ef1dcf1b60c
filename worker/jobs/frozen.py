"""The base of the record's immutable values."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """The base of immutable values; `evolve` makes a changed copy."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,  # parts of the record are shown with all their fields
    )

    def evolve(self, **changes: object) -> Self:
        """Return a copy with `changes`, validated like a new value (`model_copy` would not validate)."""
        return type(self)(**{**self.__dict__, **changes})
