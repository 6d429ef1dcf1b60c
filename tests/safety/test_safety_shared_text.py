"""What a message shares with the request is cut, whatever its case, whitespace and escapes; the rest is shown."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from worker.safety.provider_message import MAX_COMPARED, MAX_EXACT, QUOTED, compare_message, strings_in
from worker.safety.shared_text import CHARACTERS, WORDS, cut, shared_runs

PROMPT = "please explain how the quick brown fox jumps over the lazy dog near the old river bank"
EIGHT = "how the quick brown fox jumps over the"
SEVEN = "how the quick brown fox jumps over"


@pytest.mark.parametrize(
    "quoted",
    [
        EIGHT,
        EIGHT.upper(),
        EIGHT.replace(" ", "\n\t  "),
        EIGHT.replace(" ", ", "),
        EIGHT.replace(" ", "\\n"),
        EIGHT.replace("quick", "qu\u200bick").replace("fox", "f\u00f3x"),
        "".join(f"&#{ord(c)};" for c in EIGHT),
        json.dumps("".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in EIGHT))[1:-1],
        PROMPT.replace(" ", ""),
    ],
)
def test_a_quotation_is_cut_however_it_is_written(quoted: str):
    found = compare_message(f"Withheld <{quoted}> by policy.", [PROMPT])
    assert found.shown == f"Withheld {QUOTED} by policy."
    assert found.cut == ("quoted",)


@pytest.mark.parametrize("message", [f"Withheld: {SEVEN}", "The model `gpt-5.6-sol` does not exist.", "", "x" * 39])
def test_less_than_a_quotation_is_shown_word_for_word(message: str):
    assert compare_message(message, [PROMPT, "x" * 100]).shown == message


def test_forty_characters_are_a_quotation_and_a_word_is_not_cut_in_half():
    prompt = "0123456789" * 4
    assert compare_message(f"No: {prompt[:39]}", [prompt]).cut == ()
    assert compare_message(f"No: pre{prompt}post, sorry", [prompt]).shown == f"No: {QUOTED} sorry"


NAMES = ["canary-prompt-5f3a9c", "anna.k-1987@example.org", "0x7f3a9c00deadbeef", "acct_00a1b2c3d4"]


@pytest.mark.parametrize("name", NAMES)
def test_one_distinctive_name_of_the_request_is_enough(name: str):
    message, request = f"We can't help with '{name}' (code cyber_policy).", f"Tell me about {name.upper()} now"
    assert name not in cut(message, shared_runs(message, [request]), "[cut]")
    assert cut(message, shared_runs(message, ["Tell me about it"]), "[cut]") == message


def test_secrets_are_cut_too_and_both_are_said():
    found = compare_message(f"Key vgl_0123456789abcdef was used for {EIGHT}.", [PROMPT])
    assert found.shown == f"Key [redacted: Vigil API Key] was used for {QUOTED}"
    assert found.cut == ("quoted", "secret")


def test_a_message_that_was_too_long_says_so():
    found = compare_message("m" * MAX_EXACT, [PROMPT])
    assert found.shown == "m" * MAX_EXACT + " [cut: longer than 4000 characters]"
    assert found.cut == ("too_long",)


def test_what_can_not_be_compared_is_not_shown():
    for sources in (None, ["x" * (MAX_COMPARED + 1)]):
        found = compare_message("A message.", sources)
        assert (found.exact, found.shown, found.cut) == ("A message.", None, ("not_compared",))
        assert "message" not in repr(found)


def test_the_strings_of_a_request_are_compared_in_their_order():
    request = {
        "input": [{"role": "user", "content": [{"text": "how the quick brown"}, {"text": "fox jumps over the"}]}]
    }
    assert compare_message(f"No: {EIGHT}", strings_in(request)).cut == ("quoted",)


@given(st.lists(st.sampled_from(["a", "b", "Ab", "c-d"]), max_size=60), st.data())
def test_exactly_the_runs_of_eight_words_are_found(words: list[str], data: st.DataObject):
    """The quick search agrees with one that tries every window, on texts that repeat themselves."""
    message = data.draw(st.lists(st.sampled_from(["a", "b", "Ab", "c-d"]), max_size=30))
    units = " ".join(message).lower().replace("-", " ").split()
    source = " ".join(words).lower().replace("-", " ").split()
    windows = {tuple(source[at : at + WORDS]) for at in range(len(source) - WORDS + 1)}
    expected = any(tuple(units[at : at + WORDS]) in windows for at in range(len(units) - WORDS + 1))
    text, prompt = " ".join(message).lower(), " ".join(words).lower()
    for one, other in ((text, prompt), (text.replace(" ", ""), prompt.replace(" ", ""))):
        expected = expected or any(one[at : at + CHARACTERS] in other for at in range(len(one) - CHARACTERS + 1))
    assert bool(shared_runs(" ".join(message), [" ".join(words)])) == expected


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_two_texts_can_be_compared(message: str, prompt: str):
    runs = shared_runs(message, [prompt, message])
    assert all(0 <= run.start < run.end <= len(message) for run in runs)
    if len("".join(message.split())) >= CHARACTERS + len(message) // 2 and message.isascii() and message.isprintable():
        assert runs
