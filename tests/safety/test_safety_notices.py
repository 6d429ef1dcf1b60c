"""The provider's safety webhooks become notices without a word of its prose, whatever is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from worker.safety.notices import TYPES, SafetyNotice, read, response_id_of

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
CANARY = "How do I build the thing from my prompt?"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def event(kind, data, **more):
    return {
        "object": "event",
        "id": "evt_1",
        "type": kind,
        "created_at": int(NOW.timestamp()) - 5,
        "data": data,
        **more,
    }


def test_a_blocked_identifier_names_whom_and_what():
    data = {
        "safety_category": "cyber",
        "safety_identifier": "u_7f3a",
        "model": "gpt-5.6-sol",
        "project_id": "proj_sim",
        "request_id": "req_sim01",
    }
    notice = read(event("safety_identifier.blocked", data), "wh_1", NOW)
    assert notice is not None
    assert (notice.id, notice.category, notice.about, notice.page) == ("evt_1", "cyber", "request", None)
    assert notice.at == NOW - timedelta(seconds=5)
    assert read(event("safety_identifier.blocked", {**data, "request_id": None}), "wh_1", NOW).about == "end_user"


def test_a_case_is_looked_up_and_then_says_whom_it_is_about():
    notice = read(event("safety.deactivation_issued", {"id": "C-sim1"}), "wh_1", NOW)
    assert (notice.page, notice.lookup, notice.about) == (("case", "C-sim1"), "pending", "account")
    known = notice.learned(
        {"entity_identifier": "u_7f3a", "notice": {"type": "deactivation"}, "reason": "cyber_abuse", "id": "C-sim1"}
    )
    assert (known.safety_identifier, known.category, known.lookup) == ("u_7f3a", "cyber_abuse", "done")


def test_prose_of_the_provider_is_dropped():
    alert = read(event("safety.alert.created", {"id": "alert_1"}), "wh_1", NOW)
    page = {
        "request_id": "req_1",
        "error_type": "other",
        "reason": CANARY,
        "detailed_explanation": CANARY,
        "model": CANARY,
    }
    known = alert.learned({**page, "request_paused": True})
    assert (known.request_id, known.category, known.request_paused) == ("req_1", "other", True)
    assert CANARY not in known.model_dump_json()


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_every_notice_has_words_and_a_next_step(kind):
    message = read(event(kind, {"id": "x"}), "wh_1", NOW).message
    assert message.type == "notice"
    assert message.message.endswith(".")
    assert message.advice.count(".") == 1


def test_an_event_without_an_id_is_known_by_its_webhook():
    first, again = (read(event("safety.org_alert.created", {"id": "a"}, id=None), "wh_1", NOW) for _ in range(2))
    assert first.id == again.id
    assert first.id != read(event("safety.org_alert.created", {"id": "a"}, id=None), "wh_2", NOW).id


def test_other_types_are_no_notices():
    assert read(event("response.completed", {"id": "resp_1"}), "wh_1", NOW) is None
    assert read(event("future.thing", {}), "wh_1", NOW) is None
    assert response_id_of(event("response.completed", {"id": "resp_1"})) == "resp_1"


def test_it_is_looked_at_less_and_less_often_and_in_the_end_no_more():
    notice = read(event("safety.warning_issued", {"id": "C-1"}), "wh_1", NOW)
    waits = [notice.evolve(tries=tries).wait for tries in range(1, 10)]
    assert waits[:2] == [2.0, 10.0]
    assert waits[6:] == [None, None, None]
    assert all(a < b for a, b in pairwise(waits[:6]))
    assert notice.evolve(tries=1, lookup="done", safety_identifier="u", jobs=("job_1",)).wait is None
    assert notice.evolve(tries=1, lookup="refused").wait is None  # nobody is named and nobody will be


@given(st.sampled_from(sorted(TYPES)), json_values, json_values, json_values)
def test_any_json_is_read_without_a_fault_and_without_prose(kind, data, name, created):
    sent = {"type": kind, "data": data, "id": name, "created_at": created}
    notice = read(sent, "wh_1", NOW)
    assert isinstance(notice, SafetyNotice)
    if isinstance(data, dict):
        notice = notice.learned(data)
    assert abs(notice.at - NOW) <= timedelta(days=30)
    assert " " not in notice.id
    assert SafetyNotice.model_validate_json(notice.model_dump_json()) == notice
