"""Cuts lists and objects of a request down to what a model can accept, plus enough to name what is wrong with the rest.

Pydantic checks every item of a list that is too long and every unknown field of an object, and makes an error for
each: a body of 1 MiB then costs seconds. What is cut here never changes the verdict: a list keeps one item more than
the model allows, an object one unknown field more than a problem document names.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from annotated_types import MaxLen
from pydantic import BaseModel, SkipValidation
from pydantic.fields import FieldInfo

MAX_ERRORS: Final = 20
"""How many bad fields a problem document names."""


class _Shape(NamedTuple):
    """What a value is cut to: a list or an object of at most `most` items, or, with `names`, a model's fields."""

    most: int
    names: frozenset[str] = frozenset()
    members: Mapping[str, _Shape] = {}
    """The shapes of the fields that can be too long; of a list, of each item, as ""."""


def bounded(model: type[BaseModel], sent: object) -> object:
    """Return `sent` without what is beyond every limit of the model; `sent` itself if nothing is."""
    return _cut(_shape_of_model(model), sent)


def _cut(shape: _Shape, sent: object) -> object:
    if isinstance(sent, list):
        return _cut_list(shape, sent)
    return _cut_object(shape, sent) if isinstance(sent, dict) else sent


def _cut_list(shape: _Shape, sent: list[Any]) -> list[Any]:
    if shape.names:  # a list in the place of a model: its items are not checked
        return sent
    kept = sent[: shape.most + 1] if len(sent) > shape.most + 1 else sent
    inner = shape.members.get("")
    return [_cut(inner, item) for item in kept] if inner is not None else kept


def _cut_object(shape: _Shape, sent: dict[str, Any]) -> dict[str, Any]:
    kept = sent
    if len(sent) > shape.most + len(shape.names) + 1:
        known = {name: sent[name] for name in shape.names if name in sent}
        kept = {name: sent[name] for name in islice((n for n in sent if n not in known), shape.most + 1)} | known
    for name, inner in shape.members.items():
        value = kept.get(name)
        if value is not None and (after := _cut(inner, value)) is not value:
            kept = {**kept, name: after}
    return kept


@cache
def _shape_of_model(model: type[BaseModel]) -> _Shape:
    """Return the shape of a model, computed once. Raises TypeError if one of its lists or objects has no limit."""
    members = {}
    for name, field in model.model_fields.items():
        shape = _shape_of(field.annotation, field.metadata, f"{model.__name__}.{name}")
        if shape is not None:
            members[name] = shape
    return _Shape(MAX_ERRORS, frozenset(model.model_fields), members)


def _shape_of(annotation: Any, metadata: Iterable[Any], place: str) -> _Shape | None:
    """Return the shape of values of this annotation; None if no work grows with the number of their items."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if SkipValidation in args:
            return None  # it is checked later, by itself
        return _shape_of(args[0], [*metadata, *args[1:]], place)
    if origin in {Union, types.UnionType}:
        shapes = [shape for arg in args if (shape := _shape_of(arg, metadata, place)) is not None]
        if len(shapes) > 1:
            msg = f"{place}: a union of several lists and objects can't be cut"
            raise TypeError(msg)
        return shapes[0] if shapes else None
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _shape_of_model(annotation)
    if origin not in {tuple, list, dict} or Any in args:
        return None  # anything is accepted in it
    most = _max_length(metadata)
    if most is None:
        msg = f"{place}: a list or an object that a caller sends needs a max_length"
        raise TypeError(msg)
    inner = None if origin is dict else _shape_of(args[0], (), place)
    return _Shape(most, members={"": inner} if inner is not None else {})


def _max_length(metadata: Iterable[Any]) -> int | None:
    """Return the limit on the number of items that the metadata of a type sets."""
    for one in metadata:
        found = one.max_length if isinstance(one, MaxLen) else None
        if isinstance(one, FieldInfo):
            found = _max_length(one.metadata)
        if found is not None:
            return found
    return None
