"""Decides which tools a response calls: read from the request's tools, its `tool_choice` and the rounds it has had.

Pure. A loop always ends: once the last items of the request are the outputs of the last round, a message follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from .plan import Plan
from .request_body import ParsedRequest
from .schema_sample import sample
from .wire import Json, dumps

_SHELLS: Final = ("shell", "shell_command", "exec_command", "container.exec", "local_shell", "bash")
"""Names of functions by which coding agents offer a shell."""
_CALLABLE: Final = ("function", "custom")
_PATCH_FILE: Final = "simulated.txt"
_PATCH: Final = f"*** Begin Patch\n*** Add File: {_PATCH_FILE}\n+simulated line\n*** End Patch\n"
_CUSTOM_INPUT: Final = "simulated input"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call that the response makes: the type of its item, the tool's name, and its text or its whole body."""

    kind: str  # function_call | custom_tool_call | local_shell_call | shell_call | apply_patch_call
    name: str
    text: str = ""
    body: Json | None = None
    namespace: str | None = None


def offered_tools(ask: ParsedRequest) -> list[Json]:
    """Return the tools of the request and of its `additional_tools` items, flat, also those inside namespaces."""
    found = _flat(ask.body.get("tools"), None)
    for item in ask.items:
        if item.get("type") == "additional_tools":
            found += _flat(item.get("tools"), None)
    return found


def tool_uses(ask: ParsedRequest, plan: Plan) -> list[ToolUse]:
    """Return the calls of this response; none when it answers with a message."""
    tools, choice = offered_tools(ask), ask.body.get("tool_choice")
    if choice == "none" or not tools:
        return []
    scripted = _scripted(ask, plan, tools)
    if scripted:
        return scripted
    forced = _forced_names(choice)
    if forced is None:
        return []
    callable_tools = [tool for tool in tools if tool.get("type") in _CALLABLE]
    named = [tool for tool in callable_tools if not forced or tool.get("name") in forced]
    return [_use(named[-1])] if named else []  # clients add the tool that takes the result last


def rounds_done(ask: ParsedRequest) -> int:
    """Return how many turns of tool outputs have come since the last user message."""
    done, inside = 0, False
    for item in reversed(ask.items):
        if item.get("role") == "user":
            break
        is_output = item.get("role") == "tool" or str(item.get("type")).endswith("_call_output")
        done += is_output and not inside
        inside = is_output
    return done


def _scripted(ask: ParsedRequest, plan: Plan, tools: list[Json]) -> list[ToolUse]:
    names = [name for name in plan.name.split(",") if name]
    done = rounds_done(ask)
    if not (plan.tool or plan.uses) or done >= (plan.rounds or len(names) or 1):
        return []
    if plan.uses == "shell":
        return [use for use in (_shell_use(tool, plan) for tool in tools) if use is not None][:1]
    if plan.uses == "apply_patch":
        return [use for use in map(_patch_use, tools) if use is not None][:1]
    kinds = ("custom",) if plan.uses == "custom" else ("function",)
    found = [tool for tool in tools if tool.get("type") in kinds]
    if names:
        wanted = names[min(done, len(names) - 1)]
        found = [tool for tool in tools if tool.get("type") in _CALLABLE and tool.get("name") == wanted]
    if not found:
        return []
    count = 1 if ask.body.get("parallel_tool_calls") is False else plan.calls
    return [_use(found[index % len(found)]) for index in range(count)]


def _use(tool: Json) -> ToolUse:
    name, namespace = str(tool.get("name", "function")), tool.get("namespace")
    if tool.get("type") == "custom":
        text = _PATCH if name == "apply_patch" else _CUSTOM_INPUT
        return ToolUse("custom_tool_call", name, text, namespace=namespace)
    return ToolUse("function_call", name, dumps(sample(tool.get("parameters"))), namespace=namespace)


def _shell_use(tool: Json, plan: Plan) -> ToolUse | None:
    kind, name = tool.get("type"), str(tool.get("name"))
    line = plan.command or "echo simulated command"
    if kind == "local_shell":
        action = {"type": "exec", "command": ["bash", "-lc", line], "env": {}, "timeout_ms": 10_000}
        return ToolUse("local_shell_call", "", body={"action": action})
    if kind == "shell":
        return ToolUse("shell_call", "", line)
    if _runs_scripts(tool):
        return _script(tool, f"tools.exec_command({dumps({'cmd': line})})")
    if kind != "function" or name not in _SHELLS:
        return None
    parameters = tool.get("parameters")
    arguments = sample(parameters)
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    for key, schema in (properties if isinstance(properties, dict) else {}).items():
        if key in ("command", "cmd"):
            is_list = isinstance(schema, dict) and schema.get("type") == "array"
            arguments[key] = ["bash", "-lc", line] if is_list else line
        elif isinstance(arguments, dict) and key in ("workdir", "cwd"):
            arguments.pop(key, None)
    return ToolUse("function_call", name, dumps(arguments), namespace=tool.get("namespace"))


def _patch_use(tool: Json) -> ToolUse | None:
    kind = tool.get("type")
    if kind == "apply_patch":
        operation = {"type": "create_file", "path": _PATCH_FILE, "diff": "+simulated line\n"}
        return ToolUse("apply_patch_call", "", body={"operation": operation})
    if _runs_scripts(tool):
        return _script(tool, f"tools.apply_patch({dumps(_PATCH)})")
    if tool.get("name") != "apply_patch" or kind not in _CALLABLE:
        return None
    if kind == "custom":
        return _use(tool)
    parameters = tool.get("parameters")
    arguments = sample(parameters)
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    if isinstance(arguments, dict) and isinstance(properties, dict):
        arguments |= {key: _PATCH for key in ("input", "patch") if key in properties}
    return ToolUse("function_call", "apply_patch", dumps(arguments))


def _runs_scripts(tool: Json) -> bool:
    """Whether it is Codex's one custom tool, which runs JavaScript that calls its other tools."""
    return tool.get("type") == "custom" and tool.get("name") == "exec"


def _script(tool: Json, call: str) -> ToolUse:
    return ToolUse("custom_tool_call", "exec", f"text(await {call});\n", namespace=tool.get("namespace"))


def _forced_names(choice: Any) -> list[str] | None:
    """Return the names among which a call is forced, [] for any tool, or None when a message will do."""
    if choice == "required":
        return []
    if not isinstance(choice, dict):
        return None
    kind = choice.get("type")
    if kind in _CALLABLE:
        inner = choice.get(str(kind))
        return [str((inner if isinstance(inner, dict) else choice).get("name"))]
    if kind == "allowed_tools":
        inner = choice.get("allowed_tools")
        inner = inner if isinstance(inner, dict) else choice
        rows = inner.get("tools")
        names = [_named(row) for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
        return names if inner.get("mode") == "required" else None
    return None


def _named(row: Json) -> str:
    inner = row.get("function")
    return str((inner if isinstance(inner, dict) else row).get("name"))


def _flat(tools: Any, namespace: str | None) -> list[Json]:
    """Return the tools with Chat's nesting undone; a tool inside a namespace says which."""
    found: list[Json] = []
    for tool in tools if isinstance(tools, list) else []:
        if not isinstance(tool, dict):
            continue
        if tool.get("type") == "namespace" and namespace is None:
            found += _flat(tool.get("tools"), str(tool.get("name")))
            continue
        inner = tool.get(str(tool.get("type")))
        flat = {**inner, "type": tool["type"]} if isinstance(inner, dict) else dict(tool)
        found.append(flat if namespace is None else {**flat, "namespace": namespace})
    return found
