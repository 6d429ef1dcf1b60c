"""Secrets are taken out of a description, plain words are not, and what was found is told without its value."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, strategies as st

from worker.safety.redact import redact

SECRETS = {
    "Vigil API Key": "vgl_Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z0000aB",
    "Webhook Secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "OpenAI Token": "sk-proj-abcdEFGHijklMNOPqrst1234",
    "Authorization": "Bearer abcdefghijklmnopqrstuvwxyz",
    "GitHub Token": "ghp_" + "a1B2" * 9,
    "AWS Access Key": "AKIAIOSFODNN7EXAMPLE",
    "Slack Token": "xoxb-123456789012-abcdef",
    "Stripe Access Key": "sk_live_" + "a1B2" * 6,
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "E-mail Address": "mallory.jones@corp.example.com",
    "Secret Keyword": "password: hunter2!",
    "Private Key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("detector", sorted(SECRETS))
def test_each_kind_is_found_and_named_but_not_shown(detector):
    secret = SECRETS[detector]
    out = redact(f"It broke at noon with {secret} and then again.")
    assert [found.detector for found in out.found] == [detector]
    assert out.text == f"It broke at noon with [redacted: {detector}] and then again."


def test_all_at_once_leave_nothing():
    out = redact("\n".join(SECRETS.values()))
    for secret in SECRETS.values():
        for part in secret.split("\n"):
            assert part not in out.text
    assert sum(found.times for found in out.found) == len(SECRETS)


def test_a_key_without_its_end_is_taken_to_the_end():
    assert redact("x -----BEGIN PRIVATE KEY-----\nMIIEow\nnever ends").text == "x [redacted: Private Key]"


def test_invisible_characters_hide_nothing():
    assert redact("vgl_Ab3dEf\u200b6hIj9kLm2nOp5\u00adqRs8").text == "[redacted: Vigil API Key]"


def test_a_password_in_an_address():
    assert redact("see https://bob:s3cr3tpw@internal/x").text.count("s3cr3tpw") == 0


@pytest.mark.parametrize(
    "text",
    [
        "Since Monday every review of our rules on gpt-5.6-sol is withheld; see req_0123456789abcdef0123456789.",
        "Der Prüfer antwortet nicht mehr: 3 von 4 Anfragen, seit 09:00 Uhr.",
        "org-abc123 proj_def456 resp_0000000000000000000000000000000000000000000000 cyber_policy",
        "A basic question about tokens and the secret of good tests.",
    ],
)
def test_plain_words_and_ids_stay(text):
    assert redact(text) == (text, ())


@given(st.text(max_size=300))
def test_any_text_is_read_and_twice_is_as_good_as_once(text):
    once = redact(text)
    assert redact(once.text).text == once.text


@given(st.text(alphabet="abcXYZ019", min_size=32, max_size=32), st.text(max_size=50), st.text(max_size=50))
def test_no_key_of_ours_gets_through_whatever_stands_around_it(body, before, after):
    key = f"vgl_{body}{zlib.crc32(body.encode()) % 10**6:06}"
    assert key not in redact(before + key + after).text
