"""What still counts of all that follows a response's last word."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st
from thorough import cases

from worker.jobs.states import Outcome
from worker.safety import codes
from worker.safety.stream import Closed, Delta, Keepalive, ProviderProblem, Rejected, StreamError, StreamEvent, Terminal
from worker.safety.watch import AttemptWatch
from worker.upstream.ending import _ordered

NAMES = st.none() | st.sampled_from([*codes.CODES, "new_code", "500", "None"])
PROBLEM = st.tuples(NAMES, NAMES).map(lambda names: ProviderProblem(*names))
STATUS = st.sampled_from(["completed", "incomplete", "failed", "cancelled"])
REASON = st.none() | st.sampled_from(["max_output_tokens", "content_filter"])
TERMINAL = st.tuples(st.integers(5, 6), STATUS, REASON, st.none() | PROBLEM).map(
    lambda fields: Terminal(fields[0], fields[1], model="gpt-5.6-sol", incomplete_reason=fields[2], problem=fields[3])
)
AFTER = st.lists(
    st.builds(StreamError, st.integers(7, 9), PROBLEM, st.just("error_event"))
    | TERMINAL
    | st.tuples(st.sampled_from([403, 404, 500]), st.none() | PROBLEM).map(lambda fields: Rejected(*fields, on="poll"))
    | st.builds(Keepalive, st.integers(7, 9), st.just("keepalive"))
    | st.builds(Delta, st.integers(7, 9), st.just("x"))
    | st.just(Closed("clean")),
    max_size=5,
)


def _says_block(event: StreamEvent) -> bool:
    if isinstance(event, Terminal):
        return codes.weight(event.problem, event.incomplete_reason) >= codes.SUSPECT
    return isinstance(event, StreamError | Rejected) and codes.weight(event.problem) >= codes.SUSPECT


@given(TERMINAL, AFTER)
@settings(max_examples=cases(100, 400), deadline=None)
def test_one_last_word_and_a_block_anywhere_after_it_ends_the_attempt_as_one(
    terminal: Terminal, after: list[StreamEvent]
) -> None:
    events = _ordered(terminal, after)
    assert sum(isinstance(event, Terminal) for event in events) == 1
    watch = AttemptWatch("gpt-5.6-sol", checked=True, now=0.0)
    for event in events:
        watch.feed(event, 1.0)
    assert watch.verdict is not None
    blocked = any(map(_says_block, (terminal, *after)))
    assert (watch.verdict.outcome is Outcome.BLOCKED) == blocked
    if not blocked and terminal.status in ("completed", "cancelled"):
        assert watch.verdict.outcome in (Outcome.COMPLETED, Outcome.CANCELLED), "nothing else takes an answer back"
