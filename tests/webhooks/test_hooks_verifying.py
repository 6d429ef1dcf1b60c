"""What counts as the provider's signature, held against the two libraries that others check it with."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from hypothesis import given, strategies as st
from openai import OpenAI
from standardwebhooks.webhooks import Webhook

from worker.clock import Clock
from worker.simulator.webhooks import sign
from worker.webhooks.verifying import TOLERANCE_SECONDS, NotAuthentic, verify

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NOW = Clock().now().replace(microsecond=0)
BODY = b'{"type":"response.completed","data":{"id":"resp_1"}}'


def check(signature, *, stamp=None, body=BODY, secrets=(SECRET,), now=NOW, name="wh_1"):
    return verify(secrets, [name], [str(stamp or int(NOW.timestamp()))], [signature], body, now)


def test_what_either_library_signs_is_authentic_and_what_the_simulator_signs_too():
    reference = Webhook(SECRET).sign(msg_id="wh_1", timestamp=NOW, data=BODY.decode())
    assert check(reference) == check(sign(SECRET, "wh_1", int(NOW.timestamp()), BODY)) == "wh_1"


def test_the_sdk_takes_what_we_take():
    at = int(Clock().now().timestamp())
    signature = sign(SECRET, "wh_1", at, BODY)
    headers = {"webhook-id": "wh_1", "webhook-timestamp": str(at), "webhook-signature": signature}
    with OpenAI(api_key="k", webhook_secret=SECRET) as client:
        client.webhooks.verify_signature(BODY, headers)
        assert client.webhooks.unwrap(BODY, headers).type == "response.completed"
    assert check(signature, stamp=at, now=Clock().now()) == "wh_1"


def test_any_candidate_may_match_bare_or_with_its_version_and_any_live_secret():
    good, bad = sign(SECRET, "wh_1", int(NOW.timestamp()), BODY), sign("old", "wh_1", int(NOW.timestamp()), BODY)
    assert check(f"{bad} {good}") == check(good.removeprefix("v1,")) == check(f"v1a,xyz {good}") == "wh_1"
    assert check(bad, secrets=("old", SECRET)) == "wh_1"  # a secret without whsec_ is taken as it is


@pytest.mark.parametrize("seconds", [-TOLERANCE_SECONDS, -1, 0, 1, TOLERANCE_SECONDS])
def test_a_stamp_within_five_minutes_is_taken(seconds):
    stamp = int((NOW + timedelta(seconds=seconds)).timestamp())
    assert check(sign(SECRET, "wh_1", stamp, BODY), stamp=stamp) == "wh_1"


@pytest.mark.parametrize("seconds", [-TOLERANCE_SECONDS - 1, TOLERANCE_SECONDS + 1, -86_400, 86_400])
def test_an_old_or_a_future_stamp_is_refused_though_well_signed(seconds):
    stamp = int((NOW + timedelta(seconds=seconds)).timestamp())
    with pytest.raises(NotAuthentic, match=r"too (old|new)"):
        check(sign(SECRET, "wh_1", stamp, BODY), stamp=stamp)


@pytest.mark.parametrize(
    ("ids", "stamps", "signatures"),
    [
        ([], ["1"], ["v1,x"]),
        (["wh"], [], ["v1,x"]),
        (["wh"], ["1"], []),
        (["wh", "wh"], ["1"], ["v1,x"]),
        (["wh"], ["1"], ["v1,x", "v1,y"]),
        (["w h"], ["1"], ["v1,x"]),
        (["wñ"], ["1"], ["v1,x"]),
        (["x" * 257], ["1"], ["v1,x"]),
        (["wh"], ["-1"], ["v1,x"]),
        (["wh"], ["1e9"], ["v1,x"]),
        (["wh"], ["٣"], ["v1,x"]),
        (["wh"], [str(int(NOW.timestamp()))], ["v1,sígnätüré"]),
        (["wh"], [str(int(NOW.timestamp()))], [""]),
        (["wh"], [str(int(NOW.timestamp()))], ["\udcff"]),
    ],
)
def test_rubbish_is_refused_and_never_breaks(ids, stamps, signatures):
    with pytest.raises(NotAuthentic):
        verify([SECRET], ids, stamps, signatures, BODY, NOW)


def test_a_header_that_is_sent_twice_is_refused_though_one_of_the_two_is_right():
    stamp = str(int(NOW.timestamp()))
    good = sign(SECRET, "wh_1", int(stamp), BODY)
    assert verify([SECRET], ["wh_1"], [stamp], [good], BODY, NOW) == "wh_1"
    for ids, stamps, signatures in (
        (["wh_1", "wh_1"], [stamp], [good]),
        (["wh_1"], [stamp, stamp], [good]),
        (["wh_1"], [stamp], [good, good]),
    ):
        with pytest.raises(NotAuthentic, match="once"):
            verify([SECRET], ids, stamps, signatures, BODY, NOW)


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_no_changed_byte_goes_unseen(body, at, by):
    signature = sign(SECRET, "wh_1", int(NOW.timestamp()), body)
    assert check(signature, body=body) == "wh_1"
    changed = bytearray(body or b"x")
    changed[at % len(changed)] ^= by if body else 0
    if bytes(changed) != body:
        with pytest.raises(NotAuthentic):
            check(signature, body=bytes(changed))
