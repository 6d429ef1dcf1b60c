"""The SSE parser reads the same frames however a stream is cut, spelt and decorated."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from worker.client.sse import Frame, FrameTooLarge, Parser

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=20)
NAMES = st.text("abcdefg.", min_size=1, max_size=8)
FRAMES = st.lists(st.tuples(NAMES, st.lists(WORDS, min_size=1, max_size=4), st.integers(1, 99)), max_size=6)


def cut(body: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({min(one, len(body)) for one in at} | {0, len(body)})
    return [body[a:b] for a, b in pairwise(edges)]


@given(
    frames=FRAMES,
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    bom=st.booleans(),
    comment=st.sampled_from([[], [":"], [": still here"], [":data: no", ":"]]),
    space=st.sampled_from(["", " "]),
    at=st.lists(st.integers(0, 400), max_size=30),
)
def test_every_spelling_and_every_cut_gives_the_same_frames(frames, end, bom, comment, space, at):
    lines: list[str] = []
    for name, data, number in frames:
        lines += [f"event:{space}{name}", f"id:{space}{number}", *comment, "unknown: field"]
        # without the space that is cut off, a value must not begin with one
        lines += [f"data:{space}{one}" if not one.startswith(" ") else f"data: {one}" for one in data] + [""]
    body = ("\ufeff" if bom else "") + "".join(line + end for line in lines)
    parser = Parser()
    found = [frame for chunk in cut(body.encode(), at) for frame in parser.feed(chunk)]
    assert found == [Frame(name, "\n".join(data), str(number)) for name, data, number in frames]


@given(body=st.binary(max_size=300), at=st.lists(st.integers(0, 300), max_size=20))
def test_any_bytes_are_read_alike_in_one_piece_and_in_many(body, at):
    whole, pieces = Parser(), Parser()
    assert whole.feed(body) == [frame for chunk in cut(body, at) for frame in pieces.feed(chunk)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"data\n\n", [Frame("message", "", "")]),
        (b"event: x\n\n", []),
        (b": only\n\n:comments\n\n", []),
        (b"data: a\ndata:\ndata: b\n\n", [Frame("message", "a\n\nb", "")]),
        (b"data: never ended\n", []),
        (b"id: 1\ndata: a\n\ndata: b\n\n", [Frame("message", "a", "1"), Frame("message", "b", "1")]),
        (b"id: 1\0\ndata: a\n\n", [Frame("message", "a", "")]),
        (b"data: a\r\n\r\ndata: b\r\r", [Frame("message", "a", ""), Frame("message", "b", "")]),
        ("data: line\u2028separator\x0b\n\n".encode(), [Frame("message", "line\u2028separator\x0b", "")]),
        (b"data: \xff\n\n", [Frame("message", "\ufffd", "")]),
    ],
)
def test_the_corners_of_the_standard(body, found):
    for size in (1, 2, len(body)):
        parser = Parser()
        assert [f for i in range(0, len(body), size) for f in parser.feed(body[i : i + size])] == found


def test_a_frame_without_an_end_is_refused_and_not_kept_for_ever():
    parser = Parser(limit=1000)
    with pytest.raises(FrameTooLarge):
        for _ in range(100):
            parser.feed(b"data: " + b"x" * 50)
    lines = Parser(limit=1000)
    with pytest.raises(FrameTooLarge):
        for _ in range(100):
            lines.feed(b"data: " + b"x" * 50 + b"\n")
    quiet = Parser(limit=1000)
    for _ in range(100):
        assert len(quiet.feed(b"data: " + b"x" * 50 + b"\n\n")) == 1
