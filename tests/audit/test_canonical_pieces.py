"""Canonical JSON in pieces is the same bytes as in one."""

from __future__ import annotations

from hypothesis import given, strategies as st

from worker.audit.chain import canonical, canonical_pieces

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.builds(lambda items, count: items * count, st.lists(inner, max_size=3), st.sampled_from([11, 32, 33])),
        st.dictionaries(st.text(max_size=2), inner, max_size=6),
        st.builds(lambda one, count: {f"k{i}": one for i in range(count)}, inner, st.sampled_from([31, 32, 33, 65])),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=2), VALUES, max_size=4))
def test_the_pieces_are_the_whole(body):
    assert b"".join(canonical_pieces(body)) == canonical(body)
