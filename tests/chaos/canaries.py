"""Canaries: what no sink may hold, and every form in which a sink could hold it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import quote


def canary(name: str) -> str:
    """Text that occurs nowhere else; its end looks different in each spelling."""
    return f'canary-{name}-5f3a9c é&"x'


def forms(text: str) -> set[bytes]:
    """As it is, as JSON (also in JSON), in a URL, as repr, as hex, as base64 at any place of something longer."""
    core = text.partition(" ")[0]
    once = json.dumps(text)[1:-1]
    spelled = {text, core, once, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(once)[1:-1]}
    spelled |= {quote(text), quote(text, safe=""), repr(text)[1:-1], repr(text.encode())[2:-1]}
    spelled |= {text.encode().hex(), core.encode().hex(), *_base64(text.encode()), *_base64(core.encode())}
    return {form.encode() for form in spelled}


def _base64(raw: bytes) -> set[str]:
    """What stands in base64 whatever stands before and behind it."""
    out = set()
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode()
        sure = whole[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        out |= {sure, sure.translate(str.maketrans("+/", "-_"))}
    return out


def found(sinks: Mapping[str, bytes], caged: Mapping[str, str], allowed: Mapping[str, set[str]]) -> list[str]:
    """`sink: canary` for each that a sink holds and may not."""
    wanted = {name: forms(text) for name, text in caged.items()}
    return [
        f"{sink}: {name}"
        for sink, raw in sinks.items()
        for name, spelled in wanted.items()
        if name not in allowed.get(sink, set()) and any(form in raw for form in spelled)
    ]
