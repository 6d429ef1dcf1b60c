"""ops/style.py finds what it says that it finds, and this tree has none of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("style", ROOT / "ops" / "style.py")
assert spec is not None
assert spec.loader is not None
style = importlib.util.module_from_spec(spec)
spec.loader.exec_module(style)

GOOD = '"""A module."""\n\n\ndef load() -> None:\n    """Return the job, or None."""\n'


def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> list[str]:
    monkeypatch.setattr(style, "ROOT", tmp_path)
    paths = []
    for name, text in files.items():
        path = tmp_path / "worker" / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return [rule for rule, _, _ in style.findings(paths)]


@pytest.mark.parametrize(
    ("rule", "files"),
    [
        ("file-name", {"job_utils": GOOD}),
        ("file-name", {"desk": GOOD}),
        ("length", {"jobs": GOOD + "#\n" * 400}),
        ("verb", {"jobs": GOOD.replace("Return the job, or None.", "The job, or None.")}),
        ("identifier", {"jobs": "_told = 1\n"}),
        ("identifier", {"jobs": "async def asked():\n    pass\n"}),
        ("identifier", {"jobs": "class Desk:\n    pass\n"}),
        ("identifier", {"jobs": "def load(*, mine=None):\n    pass\n"}),
        ("identifier", {"jobs": "def load(job):\n    for said in job:\n        pass\n"}),
        ("identifier", {"jobs": "def load(job):\n    job.heard = 1\n"}),
        ("identifier", {"jobs": "import random as dice\n"}),
        ("class-name", {"jobs": "class Job:\n    pass\n", "record": "class Job:\n    pass\n"}),
    ],
)
def test_each_rule_finds_what_breaks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, files: dict[str, str]
) -> None:
    assert found(tmp_path, monkeypatch, **files) == [rule]


def test_what_keeps_the_rules_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(tmp_path, monkeypatch, jobs=GOOD, record="class Job:\n    told_twice = asked.said\n") == []


@pytest.mark.parametrize(
    ("sentence", "verb"),
    [
        ("Return the job, or None.", True),
        ("The job that `claim` gave.", True),
        ("Carries each of them on.", True),
        ("The job, or None.", False),
        ("Every one of these.", False),
    ],
)
def test_a_verb_is_told_from_a_noun(sentence: str, verb: bool) -> None:
    assert style.has_verb(sentence) is verb


def test_this_tree_has_no_findings() -> None:
    result = subprocess.run([sys.executable, "ops/style.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("style: no findings\n", 0)
