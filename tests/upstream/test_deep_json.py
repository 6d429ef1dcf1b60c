"""JSON that is nested too deep for the parsers: cut to null, everything beside it whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.upstream.deep_json import MAX_DEPTH, cut_depth
from worker.upstream.payload import BadJson, parse, parse_surrogates

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(beside=VALUES, escaped=st.booleans(), deeper=st.integers(0, 3000), text=st.text(alphabet='[]{}"\\x'))
def test_what_is_beside_a_deep_value_stays_whole(beside: Any, escaped: bool, deeper: int, text: str) -> None:
    inner = json.dumps(text, ensure_ascii=escaped)
    depth = MAX_DEPTH + deeper
    payload = f'{{"deep":{"[" * depth}{inner}{"]" * depth},"beside":{json.dumps(beside)}}}'.encode()
    read = json.loads(cut_depth(payload))
    assert read["beside"] == beside
    for _ in range(MAX_DEPTH - 1):
        (read["deep"],) = read["deep"]
    assert read["deep"] is None  # the object around it is the first level


@given(VALUES)
def test_what_is_not_deep_is_unchanged(value: Any) -> None:
    payload = json.dumps(value).encode()
    assert cut_depth(payload) == payload


@pytest.mark.parametrize("read", [parse, parse_surrogates])
@pytest.mark.parametrize("depth", [100, 300, 900, 3000, 300_000])
def test_any_depth_is_read(read: Any, depth: int) -> None:
    assert read(b'{"a":' + b"[" * depth + b"]" * depth + b',"b":1}')["b"] == 1


def test_a_deep_value_that_was_cut_is_no_json() -> None:
    with pytest.raises(BadJson):
        parse(b"[" * 300_000)
