from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from worker.upstream.sse import FrameTooLarge, SseSplitter


def split(*chunks: bytes) -> list[bytes]:
    splitter = SseSplitter()
    return [payload for chunk in chunks for payload in splitter.feed(chunk)]


def reference(stream: bytes) -> list[bytes]:
    """The standard's algorithm, slow and plain, less events with empty data."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found, data = [], []
    for line in text.split(b"\n")[:-1]:
        if not line:
            if payload := b"\n".join(data):
                found.append(payload)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return found


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.one_of(
    st.sampled_from([b"", b"", b"data", b"data:", b"data: ", b": hello", b":", b"retry: 10", b"id: 7", b"event: x"]),
    st.binary(max_size=6).map(lambda b: b"data: " + b.translate(None, b"\r\n")),
    st.text(max_size=6).map(lambda t: b"data:" + t.encode().translate(None, b"\r\n")),
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    end = draw(line_ends)
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return bom + b"".join(line + (draw(line_ends) if draw(st.booleans()) else end) for line in draw(st.lists(lines)))


@given(streams(), st.lists(st.integers(0, 200)))
def test_any_chunking_gives_the_same_frames(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(edges)]
    assert split(*chunks) == reference(stream)


@given(streams())
def test_one_byte_at_a_time_gives_the_same_frames(stream: bytes) -> None:
    assert split(*(stream[i : i + 1] for i in range(len(stream)))) == reference(stream)


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"data: {}\n\n", [b"{}"]),
        (b"event: a\ndata: {}\n\n", [b"{}"]),
        (b"data:{}\n\n", [b"{}"]),
        (b"data:  {}\n\n", [b" {}"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b": ping\n\n", []),
        (b"data:\n\n", []),
        (b"data\n\n", []),
        (b"event: only\n\n", []),
        (b"id: 1\nretry: 5\ndata: a\nunknown: z\n\n", [b"a"]),
        (
            'data: {"d":"gr\u00fc\u00df\u2028\U0001f600"}\n\n'.encode(),
            ['{"d":"gr\u00fc\u00df\u2028\U0001f600"}'.encode()],
        ),
        (b"data: [DONE]\n\n", [b"[DONE]"]),
        (b"database: a\n\n", []),
    ],
)
def test_frames(stream: bytes, payloads: list[bytes]) -> None:
    assert split(stream) == payloads
    # and after another frame, where the fast path may take it
    assert split(b"data: 0\n\n", stream.removeprefix(b"\xef\xbb\xbf")) == [b"0", *payloads]


@pytest.mark.parametrize(
    ("stream", "left"),
    [
        (b"", None),
        (b"data: a\n\n", None),
        (b": comment\n", None),
        (b": comm", None),
        (b"\n\n", None),
        (b'data: {"type":"resp', b'{"type":"resp'),
        (b"data: a\n", b"a"),
        (b"data: a\ndata: b", b"a\nb"),
        (b"event: x\n", b""),
        (b"eve", b""),
        (b"\xef\xbb", b""),
    ],
)
def test_half_a_frame_at_the_end_is_reported(stream: bytes, left: bytes | None) -> None:
    splitter = SseSplitter()
    splitter.feed(stream)
    assert splitter.close() == left


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b'data: 1\n\n{"error":1}\n\ndata: 2\n\n', [b"1", b'{"error":1}', b"2"]),
        (b'data: 1\n{"error":1}\ndata: 2\n\n', [b"1", b'{"error":1}', b"2"]),
        (b'{\n  "error": {\n    "a": 1\n  }\n}\n\n', [b'{\n  "error": {\n    "a": 1\n  }\n}']),
        (b'error: {"error":1}\n\n', [b'{"error":1}']),
        (b"{half\n\ndata: 1\n\n", [b"1"]),
        (b'event: x\nnoise: {"a":1}\n\n', []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_json_without_a_field_name_is_a_payload(stream: bytes, payloads: list[bytes], size: int) -> None:
    stream = b": begun\n\n" + stream
    assert split(*(stream[i : i + size] for i in range(0, len(stream), size))) == payloads


def test_comments_and_empty_events_are_counted_as_life() -> None:
    splitter = SseSplitter()
    splitter.feed(b": a\n\n: b\n\ndata:\n\ndata: c\n\n")
    assert splitter.comments == 3


@pytest.mark.parametrize("size", [1, 1000, 1 << 16])
def test_a_huge_frame_costs_no_more_than_its_length(size: int) -> None:
    whole = b"data: " + b"x" * (1 << 20 if size == 1 else 5 << 20) + b"\n\n"
    chunks = [whole[i : i + size] for i in range(0, len(whole), size)]
    begun = time.process_time()
    assert split(*chunks) == [whole[6:-2]]
    assert time.process_time() - begun < 5


def test_many_lines_of_one_frame_cost_no_more_than_their_length() -> None:
    assert len(split(b"data: x\n" * 200_000, b"\n")[0]) == 399_999


def test_a_frame_without_an_end_is_refused() -> None:
    splitter = SseSplitter(limit=1000)
    with pytest.raises(FrameTooLarge):
        for _ in range(2000):
            splitter.feed(b"data: x\n")


def test_the_limit_is_for_one_frame_not_for_the_stream() -> None:
    splitter = SseSplitter(limit=1000)
    for _ in range(500):
        assert splitter.feed(b"data: x\ndata: y\n\n") == [b"x\ny"]
