"""Defines scenarios of what agents need: tool calls, reasoning, added tools, structured answers, image and file input.

Pure data, part of scenarios.py's table. A scenario that calls tools ends by itself: see tools.py.
"""

from __future__ import annotations

from typing import Final

from .scenario import Expected, Scenario

_CALLS: Final = ("name", "rounds", "calls", "reasoning", "tokens")

TOOL_SCENARIOS: Final[tuple[Scenario, ...]] = (
    Scenario(
        "tool_call",
        "Calls a function of `tools`, arguments streamed; a message once its output is sent back.",
        {"tool": True},
        _CALLS,
        Expected(note="an answer when the request has no tools"),
    ),
    Scenario(
        "parallel_tool_calls",
        "Calls several functions at once; a message once their outputs are sent back.",
        {"tool": True, "calls": 2},
        _CALLS,
    ),
    Scenario(
        "agent_loop",
        "Calls a function in each of three turns, thinking before each, then a message.",
        {"tool": True, "rounds": 3, "reasoning": True},
        _CALLS,
    ),
    Scenario("custom_tool_call", "Calls a custom tool with a text that is no JSON.", {"uses": "custom"}, _CALLS),
    Scenario(
        "shell_call",
        "Runs one command: a `local_shell` or `shell` tool, or a coding agent's function for it.",
        {"uses": "shell"},
        ("command", "reasoning"),
    ),
    Scenario(
        "apply_patch_call",
        "Adds a file by the `apply_patch` tool, in whichever of its three forms it is offered.",
        {"uses": "apply_patch"},
        ("reasoning",),
    ),
    Scenario(
        "reasoning",
        "A reasoning item with a summary and encrypted content, then the answer.",
        {"reasoning": True},
        ("tokens",),
    ),
    Scenario(
        "additional_tools",
        "An additional_tools item, then the answer; tools in such items of the input can be called.",
        {"adds_tools": True},
        ("tokens",),
    ),
    Scenario("structured_output", "A JSON answer: an instance of the request's schema, else {}.", {"json": True}, ()),
    Scenario(
        "inputs",
        "Says how many texts, images, files and sounds the last user message has, and nothing of them.",
        {"counts_inputs": True},
        (),
    ),
)
