"""The base of all types that the API answers with: unknown fields and values of a newer server are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

T = TypeVar("T")
Open = Annotated[T | str, Field(union_mode="left_to_right")]
"""One of the known values, or any string that a newer server sends."""


class ApiModel(BaseModel):
    """The base: frozen, accepts unknown fields, shows only the fields in SHOWN in a repr."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True, protected_namespaces=())
    SHOWN: ClassVar[tuple[str, ...]] = ()
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(data)
        if isinstance(data, dict):
            made._raw = data  # noqa: SLF001  an instance of this class
        return made

    @property
    def raw(self) -> dict[str, Any]:
        """Return the JSON as it came."""
        return self._raw

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        return ((name, getattr(self, name)) for name in self.SHOWN)
