"""Defines the names of provider accounts: what they may look like, and the scope of what waits for a missing one."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_ACCOUNT: Final = "default"
"""The account of OPENAI_API_KEY, OPENAI_ORG_ID and OPENAI_PROJECT_ID: the only one, unless a file names others."""

CIRCUIT: Final = "key:"
"""How the scope of an account's circuit begins."""

_MISSING: Final = "account:"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")  # a part of a setting's name


def is_account_name(name: str) -> bool:
    """Return whether an account may have this name: lower case letters, digits and `_`, at most 32."""
    return _NAME.fullmatch(name) is not None


def missing_account(name: str) -> str:
    """Return the scope of the hold of a job whose response runs with an account that this worker does not have."""
    return _MISSING + name


def is_missing_account(scope: str | None) -> bool:
    """Return whether this is the scope of such a hold."""
    return scope is not None and scope.startswith(_MISSING)
