"""The lock files: they install without resolving anything, on every Python and platform that is served."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from ops_server import ROOT
from packaging.requirements import Requirement

OPS = ROOT / "ops"
LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-dev.lock")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ops_locks", OPS / "locks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ops_locks"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


locks = _load()
PACKAGES = json.loads((OPS / "requirements.json").read_text())


def _faults(name: str, text: str) -> list[str]:
    return locks.faults(locks.read_lock(text), locks.sources()[name], PACKAGES)


def _without(text: str, package: str) -> str:
    return re.sub(rf"^{re.escape(package)}==.*\n(?:    --hash=.*\n)+", "", text, flags=re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with copies of the locks and of what describes them."""
    for name in (*LOCKS, "requirements.json"):
        shutil.copy(OPS / name, tmp_path / name)
    return tmp_path


def test_the_locks_are_closed_and_have_every_hash() -> None:
    assert locks.check() == []


@pytest.mark.parametrize("name", LOCKS)
def test_a_package_that_is_taken_out_is_missed(name: str) -> None:
    text = (OPS / name).read_text()
    wanted = [package for package, pin in locks.read_lock(text).items() if locks._is_ever_wanted(pin.marker)]
    one_in = max(1, len(wanted) // 6)  # each takes a quarter of a second
    for package in wanted[::one_in]:
        shorter = _without(text, package)
        assert shorter != text
        faults = [fault.lower().replace("_", "-") for fault in _faults(name, shorter)]
        assert any(f"requires {package}" in fault for fault in faults), package


@pytest.mark.parametrize(
    ("name", "package", "asker"),
    [
        ("requirements.lock", "hiredis", "redis"),  # an extra's
        ("requirements.lock", "async-timeout", "redis"),  # before Python 3.11.3 only
        ("requirements-dev.lock", "coverage", "pytest-cov"),  # with an extra
    ],
)
def test_what_an_extra_or_an_older_python_needs_is_missed(name: str, package: str, asker: str) -> None:
    faults = _faults(name, _without((OPS / name).read_text(), package))
    assert [fault for fault in faults if asker in fault and package in fault]


def test_a_requirement_of_an_extra_counts_though_the_lock_names_no_extra() -> None:
    described = json.loads(json.dumps(PACKAGES))
    described["coverage"]["requires"].append("not-pinned>=1; extra == 'toml'")
    text = (OPS / "requirements-dev.lock").read_text()
    faults = locks.faults(locks.read_lock(text), locks.sources()["requirements-dev.lock"], described)
    assert any("coverage requires not-pinned" in fault for fault in faults)


def test_every_hash_of_every_file_that_we_may_install_is_missed(copy: Path) -> None:
    path = copy / "requirements.lock"
    lines = path.read_text().splitlines(keepends=True)
    by_digest = {digest: file for package in PACKAGES.values() for file, digest in package["files"].items()}
    tried = 0
    for number, line in enumerate(lines):
        found = re.search(r"sha256:([0-9a-f]{64})", line)
        if found and found[1] in by_digest and number % 97 == 0:
            lock = locks.read_lock("".join(lines[:number] + lines[number + 1 :]))
            faults = locks.faults(lock, locks.sources()[path.name], PACKAGES)
            assert f"the hash of {by_digest[found[1]]} is missing" in faults
            tried += 1
    assert tried > 1


def test_a_range_in_place_of_a_pin_is_refused(copy: Path) -> None:
    path = copy / "requirements.lock"
    path.write_text(path.read_text().replace("starlette==", "starlette>=", 1))
    with pytest.raises(ValueError, match="neither a pin nor a hash: starlette>="):
        locks.check(copy)


def test_the_smaller_locks_pin_what_the_largest_pins(copy: Path) -> None:
    path = copy / "requirements.lock"
    pin = re.search(r"^(arq==[^ ]+)", path.read_text(), re.MULTILINE)
    assert pin is not None
    path.write_text(path.read_text().replace(pin[1], "arq==0.0.1"))
    assert any("arq is pinned otherwise" in fault for fault in locks.check(copy))


def test_no_lock_names_an_address() -> None:
    for name in (*LOCKS, "requirements.json"):
        assert "://" not in (OPS / name).read_text()


def test_what_is_described_is_what_is_installed() -> None:
    compared = 0
    for name, package in PACKAGES.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # pinned for another Python
        if installed.version == package["version"]:  # `make test-newest` may have newer ones
            described = {str(Requirement(text)) for text in package["requires"]}
            assert {str(Requirement(text)) for text in installed.requires or []} == described, name
            compared += 1
    assert compared


def test_every_recipe_that_installs_a_lock_resolves_nothing() -> None:
    recipes = ["Makefile", "ops/install.sh", "ops/Dockerfile", "README.md", "ops/production.md", ".ci/run"]
    for recipe in recipes:
        commands = (ROOT / recipe).read_text().replace("\\\n", " ").splitlines()
        for command in commands:
            if re.search(r"pip[\"']?\s.*install\b.*requirements[\w-]*\.lock", command):
                assert "--no-deps" in command, f"{recipe}: {command}"
                assert "--require-hashes" in command, f"{recipe}: {command}"
