"""Our errors: one root, and messages that a person can use."""

import pytest

from worker.jobs import errors
from worker.jobs.states import DELIVERED, Outcome


def test_all_errors_have_one_root():
    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(found) >= 17
    assert all(issubclass(e, errors.VigilError) for e in found)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.LeaseLost("job_1"), "job_1: another worker holds the lease"),
        (errors.AlreadySettled("job_1", "blocked"), "job_1 is blocked already"),
        (errors.SettingsError(["one", "two"]), "one; two"),
        (errors.UnknownModel("x", ["a", "b"]), "unknown model 'x'; known: a, b"),
        (errors.Refused("offer_gone", "There is no offer."), "There is no offer."),
    ],
)
def test_messages_say_what_is_the_case(error, text):
    assert str(error) == text


def test_what_programs_read():
    assert (errors.Refused("c", "d").code, errors.Refused("c", "d").status, errors.Refused("c", "d", 404).status) == (
        "c",
        409,
        404,
    )
    assert errors.SettingsError(["one"]).faults == ["one"]
    assert errors.LeaseLost("job_1").job_id == "job_1"


def test_nothing_that_was_delivered_or_withheld_is_retried():
    assert not errors.RETRYABLE & DELIVERED
    assert Outcome.BLOCKED not in errors.RETRYABLE
