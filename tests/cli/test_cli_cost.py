"""`vigil cost`: exact, offline, for a person and for a program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from vigil_process import Vigil

from worker.cli.main import run

Here = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command line in this process, in a folder of its own; return (exit code, stdout, stderr), as lines."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, list[str], list[str]]:
        code = run(list(words))
        output = capsys.readouterr()
        return code, output.out.splitlines(), output.err.splitlines()

    return call


NAMES = ["gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"]


@pytest.mark.parametrize(
    ("read", "written", "totals"),
    [
        ("10M", "2M", ["$110", "$55", "$22"]),
        ("50M", "10M", ["$550", "$275", "$110"]),
        ("100M", "20M", ["$1,100", "$550", "$220"]),
    ],
)
def test_the_guides_table_of_its_day(here: Here, read: str, written: str, totals: list[str]) -> None:
    code, lines, _ = here("cost", "--at", "2026-06-29", "--input", read, "--output", written)
    assert code == 0
    assert lines[0].split() == ["MODEL", "INPUT", "OUTPUT", "TOTAL"]
    assert [line.split()[0] for line in lines[1:4]] == NAMES
    assert [line.split()[-1] for line in lines[1:4]] == totals
    assert "Prices of 2026-06-29, in US dollars." in lines
    assert any("the access guide of 2026-06-29" in line for line in lines)
    assert lines[-1].startswith("No price on that day: gpt-6-astra")


def test_without_a_day_todays_prices_with_date_and_source(vigil: Vigil) -> None:
    result = vigil("cost", "--input", "10M", "--output", "2M")
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:] if "$" in line}
    assert [rows[name][-1] for name in NAMES[1:]] == ["$44", "$4.4"]
    assert {"gpt-6-luna", "gpt-6.1-sol", "gpt-6.2-astra", "gpt-5.5", "gpt-5.4-mini"} < rows.keys()
    assert "Prices of 20" in result.stdout
    assert "checked on 2026-11-29" in result.stdout


def test_json_has_money_as_decimal_strings(vigil: Vigil) -> None:
    args = ("--input", "10_000_000", "--output", "2000k", "--model", "gpt-5.6", "--at", "2026-07-01", "--json")
    found = json.loads(vigil("cost", *args).stdout)
    assert (found["currency"], found["at"]) == ("USD", "2026-07-01T00:00:00Z")
    [sol] = found["models"]
    money = {"model": "gpt-5.6-sol", "input": "50.000000", "output": "60.000000", "total": "110.000000"}
    dates = {"from": "2026-06-26T00:00:00Z", "until": "2026-08-21T00:00:00Z"}
    assert sol.items() > (money | dates).items()
    assert sol["source"]


@pytest.mark.parametrize(
    ("words", "total"),
    [
        (("--cached", "1M"), "$0.02"),
        (("--cache-write", "1M"), "$0.25"),
        (("--cache-write-12h", "1M"), "$0.5"),
        (("--long-context",), "$0.4"),
        (("--tier", "batch"), "$0.1"),
        (("--tier", "fast"), "$0.4"),
        (("--window", "8h"), "$0.12"),
        (("--regional",), "$0.22"),
    ],
)
def test_each_rule_of_the_price(here: Here, words: tuple[str, ...], total: str) -> None:
    code, output, _ = here("cost", "--input", "1M", "-m", "gpt-5.6-luna", "--at", "2026-11-29", *words)
    assert code == 0
    assert output[1].split()[-1] == total


@pytest.mark.parametrize(("term", "options"), [("tier", ("--tier", "ultrafast")), ("window", ("--window", "8h"))])
def test_a_model_without_a_price_for_the_terms_is_named(vigil: Vigil, term: str, options: tuple[str, ...]) -> None:
    args = ("cost", "--input", "1M", "--at", "2026-11-29", *options)
    models = {row["model"]: row for row in json.loads(vigil(*args, "--json").stdout)["models"]}
    unpriced = {name for name, row in models.items() if row["unpriced"]}
    assert unpriced, "every model has this price: the test needs another term"
    assert all(models[name]["unpriced"] == [term] for name in unpriced)
    standard = {row["model"]: row["total"] for row in json.loads(vigil(*args[:5], "--json").stdout)["models"]}
    assert {name for name, row in models.items() if row["total"] == standard[name]} >= unpriced
    line = next(line for line in vigil(*args).stdout.splitlines() if line.startswith("At Standard prices"))
    assert {name.strip(" .") for name in line.partition(": ")[2].split(",")} == unpriced


@pytest.mark.parametrize(
    "words",
    [("--tier", "warp"), ("--window", "9h"), ("--tier", "fast", "--window", "2h"), ("--at", "yesterday"),
     ("--at", "2026-02-30"), ("--at", "2026-06-29T12:00:00"), ("--cached", "2M"), ("--cache-write", "2M")],
)  # fmt: skip
def test_what_has_no_price_is_one_line(here: Here, words: tuple[str, ...]) -> None:
    code, _, complaint = here("cost", "--input", "1M", *words)
    assert (code, len(complaint)) == (2, 1)


@pytest.mark.parametrize(
    ("amount", "cost"), [("1", "$0.000001"), ("1.5M", "$1.5"), ("1.234567M", "$1.234567"), ("2g", "$2,000")]
)
def test_suffixes_and_no_needless_zeros(vigil: Vigil, amount: str, cost: str) -> None:
    result = vigil("cost", "--input", amount, "-m", "gpt-5.6-luna", "--at", "2026-06-29")
    assert result.stdout.splitlines()[1].split() == ["gpt-5.6-luna", cost, "$0", cost]


@pytest.mark.parametrize("amount", ["-1", "1e6", "0.5", "NaN", "1,000", "_1", "", "9999999G"])
def test_what_is_no_number_of_tokens(vigil: Vigil, amount: str) -> None:
    result = vigil("cost", f"--input={amount}")
    assert result.returncode == 2
    assert "is no number of tokens" in result.stderr


def test_prices_of_the_users_own_models_file(vigil: Vigil, tmp_path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[models.tiny]\nfamily = "f"\ntier = "fast"\nchecked = false\ninput = "0.15"\noutput = "0.6"\n'
    )
    result = vigil("cost", "--input", "1M", "--output", "1M", VIGIL_MODELS_FILE="mine.toml")
    assert result.stdout.splitlines()[1].split() == ["tiny", "$0.15", "$0.6", "$0.75"]
