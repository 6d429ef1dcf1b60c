"""The bases of immutable values: Frozen refuses unknown fields, Stored keeps those of a newer release.

StoredRecord is a Stored with a schema number. `stored_fields.py` has the same for dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from worker.jobs.stored_fields import FIRST_SCHEMA

NEWER_SCHEMA: Final = "newer_schema"
"""The type of the validation error of a record with a higher schema number."""


class Frozen(BaseModel):
    """The base of immutable values; `evolve` makes a changed copy. Unknown fields are refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,  # parts of the record are shown with all their fields
    )

    def evolve(self, **changes: object) -> Self:
        """Return a copy with `changes`, validated like a new value (`model_copy` would not validate)."""
        return type(self)(**{**self.__dict__, **changes})


def _without_unknown(schema: dict[str, Any]) -> None:
    """Describe a value by the fields that are known; a program that reads it takes others anyway."""
    schema.pop("additionalProperties", None)


class Stored(Frozen):
    """The base of values that are in Redis: fields of a newer release are kept and written back, and not read here.

    While a deployment is updated, old and new processes work on the same jobs. What an old one must not ignore raises
    the record's `schema_number`.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra=_without_unknown)

    def evolve(self, **changes: object) -> Self:
        """Return a copy with `changes`, validated like a new value. Raises ValidationError for an unknown field."""
        if not changes.keys() <= self.__pydantic_fields__.keys():
            self.model_validate(changes, extra="forbid")  # raises
        return self.with_fields(changes)

    def with_fields(self, changes: Mapping[str, object]) -> Self:
        """Return a copy with `changes` from Redis, which may have fields that only a newer release knows."""
        return type(self)(**{**self.__dict__, **(self.__pydantic_extra__ or {}), **changes})

    @property
    def all_fields(self) -> dict[str, Any]:
        """Return the fields by name, with those that only a newer release knows."""
        return {**self.__dict__, **(self.__pydantic_extra__ or {})}


class StoredRecord(Stored):
    """The base of what is stored by itself: one whose schema number is higher than KNOWN_SCHEMA is not read."""

    KNOWN_SCHEMA: ClassVar[int] = FIRST_SCHEMA
    """The highest schema that this release can act on. Each record says the lowest one that its reader must know."""
    schema_number: int = Field(default=FIRST_SCHEMA, exclude_if=lambda number: number == FIRST_SCHEMA)

    @field_validator("schema_number")
    @classmethod
    def _is_known(cls, number: int) -> int:
        if number > cls.KNOWN_SCHEMA:
            raise PydanticCustomError(NEWER_SCHEMA, "the record needs a newer release")
        return number
