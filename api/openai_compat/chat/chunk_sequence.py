"""The chunks of one streamed chat completion: made of the same calls as the events of a response (event_sequence.py).

Chat has no form to take text back. So once text was streamed that will not be the answer (a block, a failure, another
model that takes over), the stream ends with an error, which OpenAI's SDKs raise; `[DONE]` then does not follow. A block
before any text ends with `finish_reason: content_filter`, as OpenAI has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from api.openai_compat.chat.completion import finish_reason_of, message_of, tool_calls_of, usage_of
from api.openai_compat.check_states import CheckState
from api.openai_compat.errors import openai_error
from api.openai_compat.event_sequence import split
from api.openai_compat.failures import chat_error
from api.openai_compat.response import ResponseSource, seconds
from api.schema.views import dumps
from api.web.problems import Problem
from worker.jobs import ids
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store.jobs.streamed_chunks import Streamed

Json = dict[str, Any]

_DONE: Final = b"data: [DONE]\n\n"
_MAX_AT_ONCE: Final = 500
"""Chunks that are made before others are served."""
_INTERRUPTED: Final = (
    "The stream ends before the answer: this process is shutting down, the API key was revoked, or the completion was "
    "deleted. The job is at GET /v1/jobs/{id}, with its answer once it has ended."
)
_SUPERSEDED: Final = (
    "The text that was streamed is withdrawn, because another model or another attempt answers instead. The answer is "
    "in GET /v1/jobs/{id} once the job has ended."
)


class ChunkSequence:
    """Makes the chunks in order, each once."""

    def __init__(self, job: Job, *, include_usage: bool) -> None:
        self._job, self._include_usage = job, include_usage
        self._out: list[bytes] = []
        self._text = ""
        self._attempt: int | None = None
        self.ended = False
        """Whether nothing follows, whatever the job does."""
        self.gave_answer = False
        self.emitted: dict[int, int] = {}
        """Attempt -> number of emitted pieces of text."""
        self.noted = 0

    def take(self) -> bytes:
        """Return the frames since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def create(self, job: ResponseSource) -> None:
        """Emit that the answer begins."""
        self._job = job.job
        own = {name: job.created()["vigil"][name] for name in ("job_id", "requested_model")}
        self._emit({"role": "assistant", "content": "", "refusal": None}, vigil=own)

    def begin(self, job: ResponseSource) -> None:
        """Record the job's state, which names the models of its attempts."""
        self._job = job.job

    def note_check(self, state: CheckState) -> None:
        """Emit what is known of safety checks."""
        self.noted += 1
        if not self.ended:
            members: Json = {"vigil": {"safety": state.safety}}
            self._emit({}, **(members if state.notice is None else {**members, "safety_buffering": state.notice}))

    def show(self, attempt: int, chunks: Sequence[str]) -> Iterator[None]:
        """Emit more of an attempt's text; end the stream if an earlier attempt's was shown."""
        self.emitted[attempt] = self.emitted.get(attempt, 0) + len(chunks)
        if self.ended or not any(chunks):
            return
        if self._attempt not in (None, attempt):
            self._fail("output_superseded", _SUPERSEDED)
            return
        self._attempt = attempt
        for number, chunk in enumerate(chunks):
            if chunk:
                self._text += chunk
                self._emit({"content": chunk})
            if number % _MAX_AT_ONCE == _MAX_AT_ONCE - 1:
                yield

    def end(self, job: ResponseSource, streamed: Streamed) -> Iterator[None]:  # noqa: ARG002  as EventSequence
        """Emit the end of a settled job."""
        if self.ended:
            return
        self._job = job.job
        response = job.current()
        completed = job.job.status is Status.COMPLETED
        if completed and not job.text.startswith(self._text):
            self._fail("output_superseded", _SUPERSEDED)
            return
        if not completed and (self._text or job.job.status is not Status.BLOCKED):
            self._error(chat_error(job.job))
            return
        self.ended, last = True, {"model": response["model"], "vigil": response["vigil"]}
        if completed:
            self._attempt = job.job.winner
            yield from self._rest(job)
            self.gave_answer = True
            logprobs = message_of(response["output"])[1]
            self._emit({}, finish=finish_reason_of(response), logprobs=logprobs, **last)
        else:
            self._emit({}, finish="content_filter", error=chat_error(job.job), **last)
        if self._include_usage:
            body = {**self._head(), "model": response["model"], "choices": [], "usage": usage_of(response["usage"])}
            self._out.append(b"data: %s\n\n" % dumps(body))
        self._out.append(_DONE)

    def fail(self, problem: Problem) -> None:
        """Emit an error in place of the remaining chunks."""
        self._error(openai_error(problem)["error"])

    def stop(self) -> bool:
        """Emit an error: without one, a client would take what it has for the whole answer."""
        if not self.ended:
            self._fail("stream_interrupted", _INTERRUPTED)
        return True

    def _rest(self, job: ResponseSource) -> Iterator[None]:
        """Emit what the answer has beside the text that was shown: its rest, a refusal, tool calls."""
        refusal = message_of(job.output)[0]["refusal"] or ""
        yield from self._pieces(job.text[len(self._text) :], lambda piece: {"content": piece})
        yield from self._pieces(refusal, lambda piece: {"refusal": piece})
        for index, call in enumerate(tool_calls_of(job.output)):
            kind = call["type"]
            name = "arguments" if kind == "function" else "input"
            value = call[kind][name]
            self._emit({"tool_calls": [{"index": index, **call, kind: {**call[kind], name: ""}}]})

            def piece_of(piece: str, index: int = index, kind: str = kind, name: str = name) -> Json:
                return {"tool_calls": [{"index": index, kind: {name: piece}}]}

            yield from self._pieces(value, piece_of)

    def _pieces(self, text: str, delta_of: Any) -> Iterator[None]:
        for number, piece in enumerate(split(text)):
            self._emit(delta_of(piece))
            if number % _MAX_AT_ONCE == _MAX_AT_ONCE - 1:
                yield

    def _head(self) -> Json:
        job, attempt = self._job, self._attempt
        known = attempt is not None and attempt <= len(job.attempts)
        return {
            "id": ids.completion_id_of(job.id),
            "object": "chat.completion.chunk",
            "created": seconds(job.created_at),
            "model": job.attempt(attempt).model if known and attempt is not None else job.requested_model,
            "system_fingerprint": None,
        }

    def _emit(
        self,
        delta: Json,
        *,
        finish: str | None = None,
        logprobs: Json | None = None,
        error: Json | None = None,
        **members: Any,
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        if error is not None:
            choice["error"] = error
        usage = {"usage": None} if self._include_usage else {}
        self._out.append(b"data: %s\n\n" % dumps({**self._head(), "choices": [choice], **usage, **members}))

    def _fail(self, code: str, message: str) -> None:
        self._error({"message": message, "type": "server_error", "param": None, "code": code})

    def _error(self, error: Json) -> None:
        self.ended = True
        self._out.append(b"data: %s\n\n" % dumps({"error": error}))
