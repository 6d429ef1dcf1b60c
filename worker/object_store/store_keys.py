"""The keys with which an object store is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """The keys and places of each vendor, by the names of the client's settings; "" = not set."""

    s3: Mapping[str, str] = field(default_factory=dict, repr=False)
    gs: Mapping[str, str] = field(default_factory=dict, repr=False)
    az: Mapping[str, str] = field(default_factory=dict, repr=False)
