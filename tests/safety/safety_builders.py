"""Feeds streams to a watch; shared by the tests of `safety`."""

from worker.jobs.record import Usage
from worker.jobs.states import RetryModelState
from worker.safety.signals import AttemptEnded
from worker.safety.stream import (
    CheckNotice,
    Created,
    Delta,
    ItemDone,
    Keepalive,
    Opened,
    PartDone,
    ProviderProblem,
    Terminal,
)
from worker.safety.watch import AttemptWatch
from worker.safety.watch_limits import WatchLimits

SOL, LUNA, TERRA = "gpt-5.6-sol", "gpt-5.6-luna", "gpt-5.6-terra"
NAMED, NONE, ABSENT = RetryModelState.NAMED, RetryModelState.NONE, RetryModelState.ABSENT
OPENED = Opened(200, "req_sim01", "org-sim", "proj_sim", 212)
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Hello."}]}
REFUSAL = {"type": "message", "content": [{"type": "refusal", "refusal": "Sorry, I can't help with that."}]}
USAGE = Usage(input_tokens=11, output_tokens=3, total_tokens=14)


def created(sequence=0, status="in_progress", model=SOL):
    return Created(sequence, "resp_sim01", model, status)


def alive(sequence=None, kind="keepalive"):
    return Keepalive(sequence, kind)


def notice(sequence=None, use_cases=("cyber",), reasons=("user_risk",), model=LUNA, state=NAMED, piggybacked=False):
    return CheckNotice(sequence, use_cases, reasons, model if state is NAMED else None, state, piggybacked)


def out(start):
    """Return the usual sequence of output events (wire.md, $OUT)."""
    return [
        alive(start, "response.output_item.added"),
        alive(start + 1, "response.content_part.added"),
        Delta(start + 2, "Hel"),
        Delta(start + 3, "lo."),
        alive(start + 4, "response.output_text.done"),
        PartDone(start + 5),
        ItemDone(start + 6, 0, MESSAGE),
    ]


def completed(sequence=None, model=SOL, **more):
    return Terminal(sequence, "completed", model=model, usage=USAGE, **more)


def problem(code, type=None, **more):  # noqa: A002
    return ProviderProblem(code, type, **more)


class Play:
    """A watch, a manual clock, and every signal so far."""

    def __init__(self, *, limits=None, checked=True, model=SOL, start=1000.0, **more):
        self.now = start
        self.watch = AttemptWatch(model, checked=checked, now=start, limits=limits or WatchLimits(), **more)
        self.signals = []

    def feed(self, *events):
        for event in events:
            self.signals += self.watch.feed(event, self.now)
        return self

    def wait(self, seconds):
        """Time passes; the watch is ticked exactly when it asked to be."""
        until = self.now + seconds
        while self.watch.next_tick() <= until:
            self.now = self.watch.next_tick()
            self.signals += self.watch.tick(self.now)
        self.now = until
        self.signals += self.watch.tick(self.now)
        return self

    def of(self, *kinds):
        return [signal for signal in self.signals if isinstance(signal, kinds)]

    @property
    def verdict(self):
        assert len(self.of(AttemptEnded)) == 1
        assert isinstance(self.signals[-1], AttemptEnded)
        return self.signals[-1].verdict
