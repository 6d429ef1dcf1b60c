"""Long base64 strings are taken out of JSON text and put back, and nothing else is."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings as limits, strategies as st

from api.web.media_strings import SHORTEST, TextTooLong, cut_media, only_in_media_fields

PICTURE = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 300).decode()
MOST = 2**18
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
fields = st.sampled_from(["image_url", "file_data", "data", "text", 'q"uote', "back\\slash"])
values = st.recursive(
    st.one_of(texts, st.integers(), st.booleans(), st.none(), st.just("<picture>"), st.just("<file>")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(fields, inner, max_size=3)),
    max_leaves=6,
)


def put_back(value, media):
    return json.loads(b"".join(media.put_back(json.dumps(value, ensure_ascii=False).encode())))


@limits(max_examples=60, deadline=None)
@given(value=values, ascii_only=st.booleans(), php=st.booleans())
def test_what_is_cut_and_put_back_is_what_was_sent(value, ascii_only, php):
    raw = json.dumps(value, ensure_ascii=ascii_only).replace("<picture>", PICTURE).replace("<file>", "A" * SHORTEST)
    value = json.loads(raw)
    raw = raw.replace("/", "\\/") if php else raw
    cut = cut_media(raw.encode(), MOST, "m" * 32)
    assert put_back(json.loads(cut.text), cut.media) == value
    longest = max((len(one) for one in json.dumps(json.loads(cut.text)).split('"')), default=0)
    assert longest < SHORTEST + 40
    assert cut.size + sum(len(b"".join(pieces)) for pieces in cut.media.strings) <= len(raw.encode())


@pytest.mark.parametrize(
    "text",
    [
        "http://10.0.0.1/" + "A" * SHORTEST,
        "A" * SHORTEST + '\\"',
        "A" * SHORTEST + "\\n",
        "A" * SHORTEST + "\\u0041",
        "A" * SHORTEST + "é",
        "A" * SHORTEST + " ",
        "data:text/html,<b>" + "A" * SHORTEST,
        "data:;base64" + "A" * SHORTEST,
    ],
)
def test_other_long_strings_stay(text):
    raw = f'{{"image_url": "{text}"}}'.encode()
    assert cut_media(raw, MOST, "m").text == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'"' + b"A " * MOST + b'"',
        b'"\\"' + b"A" * MOST + b'"',
        b'"' + b"\\" * (2 * MOST) + b'"',
        b'"' + b'\\"' * MOST + b'"',
        b"[" * (MOST + 1),
        b'""' * MOST,
    ],
)
def test_too_much_text_is_refused(raw):
    with pytest.raises(TextTooLong):
        cut_media(raw, MOST, "m")


@pytest.mark.parametrize("raw", [b"", b'"', b'{"a": "' + b"A" * SHORTEST, b'"' + b"A" * SHORTEST + b'" x', b"\\" * 9])
def test_what_is_no_json_is_left_to_the_parser(raw):
    cut = cut_media(raw, MOST, "m")
    assert b"".join(cut.media.put_back(cut.text)) == raw


def test_only_fields_of_images_and_files_may_have_one():
    def fits(value):
        cut = cut_media(json.dumps(value).encode(), MOST, "m")
        assert len(cut.media.strings) == 1
        return only_in_media_fields(json.loads(cut.text), cut.media)

    assert fits({"input": [{"content": [{"image_url": PICTURE}]}]})
    assert fits({"messages": [{"content": [{"file": {"file_data": PICTURE}}]}]})
    assert not fits({"input": PICTURE})
    assert not fits({"input": [{"content": [{"text": PICTURE}]}]})
    assert not fits([PICTURE])
    assert not fits({PICTURE: 1})
    assert not fits(PICTURE)
