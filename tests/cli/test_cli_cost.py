"""`vigil cost`: exact, offline, for a person and for a program."""

from __future__ import annotations

import json

import pytest
from vigil_process import Vigil


def test_the_table_is_exact(vigil: Vigil) -> None:
    result = vigil("cost", "--input", "10M", "--output", "2M")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        "MODEL          INPUT  OUTPUT  TOTAL",
        "gpt-5.6-sol      $50     $60   $110",
        "gpt-5.6-terra    $25     $30    $55",
        "gpt-5.6-luna     $10     $12    $22",
    ]


def test_json_has_money_as_decimal_strings(vigil: Vigil) -> None:
    result = vigil("cost", "--input", "10_000_000", "--output", "2000k", "--model", "gpt-5.6", "--json")
    assert json.loads(result.stdout) == {
        "currency": "USD",
        "models": [{"model": "gpt-5.6-sol", "input": "50.000000", "output": "60.000000", "total": "110.000000"}],
    }


@pytest.mark.parametrize(
    ("amount", "cost"), [("1", "$0.000001"), ("1.5M", "$1.5"), ("1.234567M", "$1.234567"), ("2g", "$2,000")]
)
def test_suffixes_and_no_needless_zeros(vigil: Vigil, amount: str, cost: str) -> None:
    result = vigil("cost", "--input", amount, "-m", "gpt-5.6-luna")
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
