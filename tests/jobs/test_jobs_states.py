"""The one table of statuses: ends are ends, and every status can be reached."""

from worker.jobs.states import DELIVERED, TERMINAL, TRANSITIONS, UNDER_WAY, Outcome, ScheduledReason, Status

_CONTRACT_TERMINAL = {"completed", "blocked", "failed", "cancelled", "expired"}
_CONTRACT_OUTCOMES = (
    "completed refused incomplete blocked substituted rate_limited overloaded server_error connect_failed stream_cut "
    "idle_timeout protocol_error access_denied auth_failed quota_exhausted bad_request context_too_long timed_out "
    "interrupted cancelled lost"
)


def test_the_words_are_the_contracts():
    assert {s.value for s in Status} == {"queued", "scheduled", "running", "checking"} | _CONTRACT_TERMINAL
    assert {o.value for o in Outcome} == set(_CONTRACT_OUTCOMES.split())


def test_every_status_has_a_row_and_terminal_rows_are_empty():
    assert set(TRANSITIONS) == set(Status)
    assert _CONTRACT_TERMINAL == TERMINAL
    assert all(not TRANSITIONS[status] for status in TERMINAL)
    assert all(TRANSITIONS[status] for status in set(Status) - TERMINAL)


def test_every_status_can_be_reached_from_queued_and_every_unsettled_one_can_end():
    reached, edge = {Status.QUEUED}, [Status.QUEUED]
    while edge:
        new = TRANSITIONS[edge.pop()] - reached
        reached |= new
        edge += new
    assert reached == set(Status)
    ends = {Status.BLOCKED, Status.FAILED, Status.CANCELLED, Status.EXPIRED}
    assert all(ends <= TRANSITIONS[status] for status in set(Status) - TERMINAL)


def test_only_a_running_job_can_complete_or_be_checked():
    assert {s for s in Status if Status.COMPLETED in TRANSITIONS[s]} == UNDER_WAY
    assert {s for s in Status if Status.CHECKING in TRANSITIONS[s]} == {Status.RUNNING}


def test_the_sets_that_others_lean_on():
    assert set(DELIVERED) == {Outcome.COMPLETED, Outcome.REFUSED, Outcome.INCOMPLETE}
    assert {r.value for r in ScheduledReason} == {"not_before", "backoff", "hold"}
