"""Every end has plain words, and every advice is one sentence that says what to do next."""

import re
from typing import get_args

import pytest
from test_safety_table_a import CLOSED, HTTP_ROWS

from worker.jobs.record import BlockCategory, DisclosureReason, ProviderError
from worker.jobs.states import DELIVERED, Outcome
from worker.safety import classify
from worker.safety.codes import CODES
from worker.safety.messages import MESSAGES, block_advice, disclosure_message, failure_error, job_error
from worker.safety.retry import GiveUpReason
from worker.safety.stream import ProviderProblem, StreamError


def one_sentence(text):
    return text[0].isupper() and text.endswith(".") and not re.search(r"[.!?] [A-Z]", text)


@pytest.mark.parametrize("code", sorted(MESSAGES))
def test_message_and_advice_are_plain_sentences(code):
    error = job_error(code)
    assert one_sentence(error.message)
    assert one_sentence(error.advice)
    assert error.type


@pytest.mark.parametrize("category", get_args(BlockCategory))
def test_the_advice_after_a_block_never_accuses_and_never_says_to_send_it_again(category):
    advice = block_advice(category)
    assert one_sentence(advice)
    assert "no finding of a violation" in advice
    assert "support packet" in advice
    assert re.match(r"Do not send the same|Stop this conversation", advice)


def test_every_failure_that_can_be_told_has_words_of_its_own():
    failures = [classify.rejected(row[1]) for row in HTTP_ROWS]
    failures += [classify.closed(event, opened=opened) for event, opened, _, _ in CLOSED]
    failures += [classify.silent(first_event=first) for first in (True, False)]
    failures += [classify.fault(StreamError(None, ProviderProblem(code, None), "error_event")) for code in CODES]
    for failure in failures:
        if failure.block is None:
            assert failure.code in MESSAGES
            assert MESSAGES[failure.code].type == failure.outcome
            assert failure_error(failure).code == failure.code


def test_every_undelivered_outcome_and_every_end_of_a_job_has_words():
    for name in {o.value for o in Outcome} - {o.value for o in DELIVERED}:
        assert job_error("a code of the future", name).message != MESSAGES["unknown_error"].message
    for code in (
        "attempts_exhausted",
        "run_deadline",
        "queue_deadline",
        "deadline_exceeded",
        "model_mismatch",
        "cancelled",
    ):
        assert code in MESSAGES
    assert {"attempts_exhausted", "run_deadline"} <= set(get_args(GiveUpReason))


def test_an_unknown_code_keeps_its_name_and_gets_honest_words():
    error = job_error("brand_new", provider=ProviderError(code="x"))
    assert (error.code, error.type, error.provider.code) == ("brand_new", "failed", "x")
    assert error.message == MESSAGES["unknown_error"].message


@pytest.mark.parametrize("reason", get_args(DisclosureReason))
def test_a_disclosure_names_both_models_and_the_reason(reason):
    text = disclosure_message("gpt-5.6-sol", "gpt-5.6-luna", reason)
    assert text.startswith("The model gpt-5.6-luna serves this request instead of the requested gpt-5.6-sol, because")
    assert text.endswith(".")


def test_silence_is_never_called_a_check():
    assert "check" not in disclosure_message("a", "b", "silence")
