"""The errors of a request for a chat completion, and the names that its caller knows.

A request is translated to one for a response and checked as such, so errors name fields of that; here they get back the
names that were sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.openai_compat.errors import ParamProblem
from api.web.problems import Problem

_RENAMED: Final = {
    "max_output_tokens": "max_completion_tokens",
    "reasoning": "reasoning_effort",
    "text": "response_format",
}
_IN_PARTS: Final = {"image_url": "image_url/url", "file_data": "file/file_data", "file_id": "file/file_id"}
Origins = Sequence[int]
"""Of each input item: the number of the message that it comes from."""


def unsupported(param: str, detail: str) -> ParamProblem:
    """Return the Problem (400) for what a job can't carry; `detail` says what to do instead."""
    return ParamProblem(400, "unsupported_parameter", f"{param}: {detail}", param)


def invalid(param: str, detail: str) -> ParamProblem:
    """Return the Problem (422) for a value that can't be used."""
    return ParamProblem(422, "validation_error", f"{param}: {detail}", param)


def with_chat_names(problem: Problem, origins: Origins) -> Problem:
    """Return the problem with the names of the chat request in its errors."""
    for row in problem.errors:
        if "pointer" in row:
            row["pointer"] = _pointer(row["pointer"], origins)
    return problem


def _pointer(pointer: str, origins: Origins) -> str:
    steps = pointer.split("/")[1:]
    if steps[:1] == ["params"]:
        steps = steps[1:]
    if not steps:
        return pointer
    if steps[0] != "input":
        return "/" + "/".join([_RENAMED.get(steps[0], steps[0]), *steps[1:]])
    if len(steps) == 1 or not steps[1].isdigit() or int(steps[1]) >= len(origins):
        return "/messages"
    inner = steps[2:]
    if inner[:1] == ["content"]:
        inner = [*inner[:2], *(_IN_PARTS.get(step, step) for step in inner[2:])]
    return "/" + "/".join(["messages", str(origins[int(steps[1])]), *inner])
