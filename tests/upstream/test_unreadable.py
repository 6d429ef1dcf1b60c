"""Payloads that are no complete JSON: a block is found wherever the cut is, and nothing else counts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from worker.safety.codes import CODES, CodeKind
from worker.safety.stream import Keepalive, StreamError
from worker.upstream.translate import translate
from worker.upstream.unreadable import block_among, error_in_words, value_of_cut

BLOCKS = st.sampled_from(sorted(name for name, code in CODES.items() if code.kind is CodeKind.BLOCK))
ERROR = '{"type":"error","error":{"code":"%s","message":"No \\u00e9 {[.","param":null}}'
FAILED = '{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"%s","message":"m"}}}'
FLAT = '{"type":"error","sequence_number":3,"code":"%s","message":"m"}'
RESPONSE = '{"id":"r","object":"response","status":"failed","error":{"code":"%s","message":"m"},"output":[]}'


@given(code=BLOCKS, shape=st.sampled_from([ERROR, FAILED, FLAT, RESPONSE]), data=st.data())
def test_a_code_before_the_cut_always_blocks(code: str, shape: str, data: st.DataObject) -> None:
    whole = shape % code
    end = data.draw(st.integers(whole.index(code) + len(code), len(whole)))
    (event,) = block_among(translate(value_of_cut(whole[:end].encode())))
    assert getattr(event, "response_id", None) is None


@given(code=BLOCKS, data=st.data())
def test_what_the_model_wrote_before_the_cut_never_blocks(code: str, data: st.DataObject) -> None:
    written = json.dumps(json.dumps({"error": {"code": code}}))
    whole = '{"type":"response.output_text.delta","sequence_number":1,"delta":%s}' % written  # noqa: UP031  braces
    end = data.draw(st.integers(0, len(whole)))
    assert block_among(translate(value_of_cut(whole[:end].encode()))) == []


@given(st.binary())
def test_no_payload_raises(payload: bytes) -> None:
    block_among(translate(value_of_cut(payload)))
    error_in_words(payload.decode("utf-8", "replace"), "error_event")


@pytest.mark.parametrize("words", ["ping", "OK", "error", "", "your prompt broke cyber_policy, sorry", "{"])
def test_words_without_a_known_code_are_a_sign_of_life(words: str) -> None:
    assert type(error_in_words(words, "error_event")) is Keepalive


@pytest.mark.parametrize("words", ["cyber_policy", " Cyber-Policy\n", 'error: {"error":{"code":"cyber_policy"}}'])
def test_a_known_code_in_words_is_an_error(words: str) -> None:
    event = error_in_words(words, "chat_chunk")
    assert isinstance(event, StreamError)
    assert event.carrier == "chat_chunk"
