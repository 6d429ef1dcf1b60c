"""What is written beside the code is true: the example settings, the pins, the entry points."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from worker.cli.main import COMMANDS, assemble
from worker.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def variables() -> list[str]:
    return [
        str(field.validation_alias) if field.validation_alias else f"VIGIL_{name.upper()}"
        for name, field in Settings.model_fields.items()
    ]


def test_every_setting_is_in_the_example() -> None:
    text = (ROOT / "ops" / "env.example").read_text()
    written = re.findall(r"^# ([A-Z][A-Z0-9_]+)=", text, re.MULTILINE)
    assert sorted(set(variables()) - set(written)) == []
    assert sorted(set(written) - set(variables())) == ["HTTPS_PROXY", "VIGIL_API_KEY", "VIGIL_URL"]
    assert len(written) == len(set(written))


def test_the_defaults_in_the_example_are_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    text = (ROOT / "ops" / "env.example").read_text()
    given = dict(re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    file = tmp_path / "env"
    file.write_text("".join(f"{name}={'' if value == '(none)' else value}\n" for name, value in given.items()))
    plain = Settings(_env_file=None)
    from_example = Settings(_env_file=file)
    assert from_example.model_dump() == plain.model_dump()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_pins_have_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / "ops" / name).read_text()
    assert not re.search(r"://|^-|file:|\s/\w", text, re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) > 40
    for block in blocks:
        assert re.match(r"[a-z0-9-]+==[^ ]+ ", block)
        assert "--hash=sha256:" in block


def test_the_pins_cover_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, wanted in (
        ("requirements.lock", project["dependencies"]),
        ("requirements-dev.lock", [*project["dependencies"], *project["optional-dependencies"]["dev"]]),
    ):
        pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "ops" / name).read_text(), re.MULTILINE)
        for one in wanted:
            assert re.split(r"[\[<>=!; ]", one)[0].lower() in pinned


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("ops/**/*.md"))])
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.parametrize("room", COMMANDS)
def test_each_module_has_the_commands_that_are_looked_for_in_it(room: str) -> None:
    group: Any = get_command(assemble([room]))
    assert tuple(group.commands) == COMMANDS[room]


def test_no_command_is_missing_in_the_readme_or_cut_in_the_help() -> None:
    section = (ROOT / "README.md").read_text().partition("## The command")[2].partition("\n## ")[0]
    written = set(re.findall(r"[a-z-]+", " ".join(re.findall(r"`([^`]*)`", section))))
    groups: list[Any] = [get_command(assemble())]
    for group in groups:  # it grows by the groups in the group
        assert sorted(set(group.commands) - written) == []
        assert [name for name, one in group.commands.items() if one.get_short_help_str().endswith("...")] == []
        groups += [one for one in group.commands.values() if hasattr(one, "commands")]
