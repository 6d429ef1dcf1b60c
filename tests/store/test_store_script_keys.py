"""Scripts touch the keys that they declare; ops/design/script-keys.md names those that can't, and says why."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

STORE = Path(str(files("worker.store")))
PAGE = (Path(__file__).parents[2] / "ops" / "design" / "script-keys.md").read_text()
PARTS = {
    *("admission/app_quota", "admission/quarantine_of", "admission/token_bucket", "connection/allow_oom"),
    *("connection/content_size", "connection/run_commands", "connection/tolerant_calls", "webhooks/allowance"),
    *("admission/pace", "connection/commit_words", "connection/job_words", "connection/key_tag"),
    *("jobs/callers", "jobs/limits", "webhooks/message_size"),
}
"""What comes before other scripts: it is given the names of keys."""
SCRIPTS = {path.relative_to(STORE).with_suffix("").as_posix(): path.read_text() for path in STORE.rglob("*.lua")}


def code(text: str) -> str:
    return "\n".join(line.partition("--")[0] for line in text.splitlines())


def test_only_the_scripts_of_the_page_build_keys():
    builds = {name for name, text in SCRIPTS.items() if re.search(r"_prefix\b|\bprefixes\b", code(text))} - PARTS
    assert builds == set(re.findall(r"^\| `([a-z_/]+)` \|", PAGE, re.MULTILINE))


def test_only_the_scripts_of_the_page_run_commands_of_their_caller():
    runs = {name for name, text in SCRIPTS.items() if re.search(r"\brun_commands\b|unpack\(ARGV", code(text))}
    named = PAGE.partition("Seven scripts run commands")[2].partition("\n\n")[0]
    assert runs == {name for name in re.findall(r"`([a-z_/]+)`", named) if name in SCRIPTS}


def test_no_script_spells_a_key_but_the_one_that_sets_keys_aside():
    assert [name for name, text in SCRIPTS.items() if "vigil:" in code(text)] == ["connection/tolerant_calls"]


def test_every_script_says_in_its_header_what_its_keys_are():
    for name, text in SCRIPTS.items():
        header = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]
        assert name in PARTS or re.search(r"^-- KEYS     (?!none)\w", header, re.MULTILINE), name
        assert name in PARTS or "KEYS" in code(text), name


async def test_in_a_cluster_scripts_have_all_of_the_server_that_they_use(redis):
    used = {name for text in SCRIPTS.values() for name in re.findall(r"\bredis\.(\w+)", code(text))}
    prefix = SCRIPTS["connection/key_tag"]
    look = "local found = {} for n, name in ipairs(ARGV) do found[n] = type(redis[name]) end return found"
    loaded = await redis.script_load(f"{prefix}\n{look}")
    found = await redis.evalsha(loaded, 1, "{x}vigil:unmoved", *sorted(used))
    assert {"call", "sha1hex"} <= used
    assert found == [b"function"] * len(used)
