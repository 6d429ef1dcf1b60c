"""Reading what a hostile server sends takes as long as it is large."""

from __future__ import annotations

import pytest
from growth import grows_too_fast

from worker.safety.called_tools import ToolCallArguments
from worker.safety.stream import CallDone
from worker.upstream.deep_json import cut_depth
from worker.upstream.embedded import collect_copies

PAYLOADS = {
    "escaped quotes without end": lambda n: b'"' + b'\\"' * n,
    "quotes": lambda n: b'"' * n,
    "depth": lambda n: b"[" * n,
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_cutting_deep_json(name):
    assert not grows_too_fast(cut_depth, PAYLOADS[name], 20_000)


def test_keys_that_are_given_twice():
    def pairs(n):
        return [(f"k{i}", i) for i in range(n)] + [("k0", 0)]

    assert not grows_too_fast(collect_copies, pairs, 3_000)
    assert collect_copies([("a", 1), ("b", 2), ("a", 3)]) == {"a": [1, 3], "b": 2}


@pytest.mark.parametrize("given", ["items", "no items", "items without ids"])
def test_the_arguments_of_many_calls(given):
    def answer(n):
        arguments = ToolCallArguments()
        for i in range(n):
            name = "" if given == "items without ids" else f"fc_{i}"
            arguments.add(CallDone(None, i, name, "function_call", "arguments", f"[{i}]", "f"))
        item = {"type": "function_call", "name": "f"}
        ids = [{} if given == "items without ids" else {"id": f"fc_{i}"} for i in range(n)]
        return arguments, [item | one for one in ids] if given != "no items" else []

    assert not grows_too_fast(lambda pair: pair[0].fill(pair[1]), answer, 1_500)
    arguments, items = answer(300)
    assert [item["arguments"] for item in arguments.fill(items)] == [f"[{i}]" for i in range(300)]
