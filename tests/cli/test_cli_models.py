"""`vigil models`: the rows with the one in force, and a newer file that is checked before it is used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vigil_process import Vigil, one_line

GOOD = '[models.tiny]\n[[models.tiny.prices]]\nfrom = 2026-01-01\ninput = "1"\noutput = "2"\n'


def test_rows_are_listed_and_the_one_in_force_is_marked(vigil: Vigil) -> None:
    lines = [line for line in vigil("models").stdout.splitlines() if line.startswith("gpt-5.6-luna")]
    assert [line.split()[3:8] for line in lines] == [
        ["2026-06-26", "2026-07-30", "$1", "$0.1", "$6"],
        ["*2026-07-30", "-", "$0.2", "$0.02", "$1.2"],
    ]
    june = json.loads(vigil("models", "--at", "2026-06-29", "--json").stdout)
    luna = next(model for model in june["models"] if model["id"] == "gpt-5.6-luna")
    assert [(row["input"], row["in_force"], row["tiers"]["priority"]) for row in luna["prices"]] == [
        ("1.000000", True, "2")
    ]


def test_an_update_is_checked_and_used_from_then_on(vigil: Vigil, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(GOOD)
    output = vigil("models", "update", "new.toml", "--dry-run")
    assert "+ tiny: 1 price rows" in output.stdout
    assert "- gpt-5.6-sol: no longer known" in output.stdout
    assert not (tmp_path / ".vigil" / "models.toml").exists()
    assert vigil("models", "update", "new.toml").returncode == 0
    assert (tmp_path / ".vigil" / "models.toml").read_text() == GOOD
    assert vigil("cost", "--input", "1M").stdout.splitlines()[1].split() == ["tiny", "$1", "$0", "$1"]


def test_a_bad_file_changes_nothing_and_says_every_fault(vigil: Vigil, tmp_path: Path) -> None:
    models_file = tmp_path / "mine.toml"
    models_file.write_text(GOOD)
    (tmp_path / "bad.toml").write_text(GOOD.replace('"1"', '"-1"') + "[families.f]\nslow = 1\n")
    result = vigil("models", "update", "bad.toml", VIGIL_MODELS_FILE="mine.toml")
    assert result.returncode == 2
    line = one_line(result)
    assert "`input` is a number from 0" in line
    assert "unknown key 'slow'" in line
    assert models_file.read_text() == GOOD
    assert {path.name for path in tmp_path.iterdir() if path.suffix == ".toml"} == {"mine.toml", "bad.toml"}


def test_a_broken_file_in_use_can_be_replaced(vigil: Vigil, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("not toml")
    (tmp_path / "new.toml").write_text(GOOD)
    assert vigil("cost", "--input", "1", VIGIL_MODELS_FILE="mine.toml").returncode == 2
    assert vigil("models", "update", "new.toml", VIGIL_MODELS_FILE="mine.toml").returncode == 0
    assert (tmp_path / "mine.toml").read_text() == GOOD


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_one_line(vigil: Vigil, name: str) -> None:
    result = vigil("models", "update", name)
    assert result.returncode == 2
    assert "can't be" in one_line(result)
