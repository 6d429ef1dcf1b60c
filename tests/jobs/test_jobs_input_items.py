"""Items of conversations: ids that stay, pages that leave nothing out, and nothing that only the provider knows."""

from __future__ import annotations

import json

import pytest
from growth import grows_too_fast
from hypothesis import given, strategies as st

from worker.jobs import ids
from worker.jobs.conversation import Conversation, conversation_of
from worker.jobs.input_items import (
    KeptItem,
    count_values,
    input_id,
    items_of,
    kept_input,
    kept_output,
    output_id,
    own_item,
    page_of,
    referenced_id,
    sent_again,
    shown,
)

JOB = ids.new_id("job", 1_790_000_000_000, bytes(10))
ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "a", "annotations": [{"file_id": "file-1"}], "logprobs": []}],
}
ITEMS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["message", "function_call", "reasoning", "web_search_call"])},
        optional={"id": st.text(max_size=8), "role": st.sampled_from(["user", "assistant"]), "content": st.text()},
    ),
    max_size=12,
)


def test_text_is_the_message_of_a_user():
    assert items_of("Hi") == [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]


@pytest.mark.parametrize(
    ("item", "sent"),
    [
        (ANSWER, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}),
        (
            {
                "type": "function_call",
                "id": "fc_1",
                "status": "completed",
                "call_id": "c",
                "name": "f",
                "arguments": "",
            },
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
        ),
        ({"type": "reasoning", "id": "rs_1", "summary": []}, None),
        (
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            {"type": "reasoning", "summary": [], "encrypted_content": "x"},
        ),
        ({"role": "user", "content": "Hi", "id": "mine"}, {"role": "user", "content": "Hi", "id": "mine"}),
        ({"type": "web_search_call", "id": "ws_1"}, {"type": "web_search_call", "id": "ws_1"}),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ),
    ],
)
def test_an_answer_is_sent_again_without_what_only_its_provider_knows(item, sent):
    before = json.dumps(item)
    assert sent_again(item) == sent
    assert json.dumps(item) == before, "what is kept is not changed"


@given(ITEMS, ITEMS)
def test_ids_stay_the_same_in_every_later_turn(first, answer):
    before = kept_input(JOB, {"input": first}) + kept_output(JOB, answer)
    other = ids.new_id("job", 1_790_000_000_001, bytes(10))
    stored = {"input": [one.item for one in before], "ids": [one.id for one in before]}
    assert kept_input(other, stored) == before
    assert [one.id for one in kept_input(JOB, {"input": first})] == [
        input_id(item, JOB, place) for place, item in enumerate(first)
    ]


@given(ITEMS, st.integers(1, 5), st.sampled_from(["asc", "desc"]))
def test_pages_leave_nothing_out_and_repeat_nothing(items, limit, order):
    rows = [KeptItem(f"msg_{n}", item) for n, item in enumerate(items)]
    found, after = [], None
    while True:
        page, more = page_of(rows, limit, order, after)
        found += page
        if not more:
            break
        after = page[-1].id
    assert found == (rows if order == "asc" else rows[::-1])
    assert page_of(rows, limit, order, "unknown") is None


def test_own_ids_say_their_job_and_others_say_nothing():
    made = output_id({"type": "message"}, JOB, 3)
    assert (own_item(made).job_id, own_item(made).kind, own_item(made).place) == (JOB, "", 3)
    assert own_item(made.rsplit("_", 1)[0] + "_live1").kind == "live"
    for other in ("msg_1", "rs_none", "", "msg_" + "a" * 64 + "_1", "msg_x_live1", made + "x"):
        assert own_item(other) is None


def test_references_are_items_that_only_name_another():
    assert referenced_id({"type": "item_reference", "id": "msg_1"}) == "msg_1"
    assert referenced_id({"id": "msg_1"}) == "msg_1"
    for item in (
        {"type": "message", "id": "msg_1"},
        {"type": "item_reference"},
        {"type": "item_reference", "id": 5},
        {},
    ):
        assert referenced_id(item) is None


@pytest.mark.parametrize("content", ["Hi", ["Hi"], [{"type": "input_text", "text": "Hi"}], None])
def test_a_message_is_shown_with_parts(content):
    item = shown(KeptItem("msg_1", {"role": "user", "content": content}))
    assert (item["id"], item["type"], item["role"], item["status"]) == ("msg_1", "message", "user", "completed")
    assert item["content"] == [{"type": "input_text", "text": "Hi" if content else ""}]


@given(ITEMS, ITEMS)
def test_a_conversation_is_what_was_stored_and_its_ids_are_unique(items, answer):
    made = Conversation("conv_1", 5, {"a": "b"}).with_items([KeptItem("msg_1", item) for item in items])
    made = made.with_turn(JOB, kept_input(JOB, {"input": items}), 7)
    assert conversation_of(json.loads(json.dumps(made.content())), "") == made
    ended = made.after_turn(kept_output(JOB, answer))
    names = [one.id for one in ended.items]
    assert len(set(names)) == len(names) == 2 * len(items) + len(answer)
    assert ended.without_job(JOB).items == made.items
    assert (made.after_turn(None).items, made.after_turn(None).turn) == (made.items, None)


@given(st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=2), inner)))
def test_values_are_counted_up_to_a_limit(value):
    def counted(one):
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        return 1 + sum(map(counted, inner))

    whole = counted([{"a": value}]) - 1
    assert count_values([{"a": value}], 1_000) == min(whole, 1_001)
    assert count_values([{"a": value}], 2) == min(whole, 3)


def test_naming_items_of_one_id_grows_with_their_number():
    def join(items):
        assert len({one.id for one in Conversation("conv_1", 5, {}).with_items(items).items}) == len(items)

    assert not grows_too_fast(join, lambda size: [KeptItem("same", {})] * size, 4_000)
