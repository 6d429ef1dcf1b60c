"""Pins every package that Vigil needs, and checks that the pins are whole.

    python ops/locks.py make      resolve anew and write the lock files (wants a network)
    python ops/locks.py check     print what is wrong with them, offline; exit 1 if anything is

The three locks hold exact versions and hashes. `pip install --no-deps --require-hashes -r LOCK` installs them without
resolving anything, so a lock works on any later day only if it is *closed*: each requirement of each pinned package is
pinned too, extras included, on every Python and platform in the lists below. Locks can't be checked for that by
themselves, so `make` also writes `requirements.json`: what each package requires, and which file each hash belongs to.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.parser import Parser
from functools import cache
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

ROOT = Path(__file__).resolve().parents[1]
RESOLVER = "uv==0.13.9"
PYTHONS = ("3.11.0", "3.11.14", "3.12.0", "3.13.0", "3.14.0")
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
_GLIBC = 36  # Debian 12; a wheel for an older one runs there too
_MACOS = (14, 0)
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$")
_HASH = re.compile(r"^\s+--hash=sha256:([0-9a-f]{64})\s*\\?$")


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    version: str
    marker: str | None
    hashes: frozenset[str]


Lock = dict[NormalizedName, Pin]
Package = dict[str, Any]  # "version", "requires": [requirement], "files": {filename: SHA-256}


def read_lock(text: str) -> Lock:
    """Return the pins of a lock file; raise ValueError for a line that is neither a pin nor a hash."""
    pins: Lock = {}
    name: NormalizedName | None = None
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if pin := _PIN.match(line):
            name = canonicalize_name(pin[1])
            pins[name] = Pin(pin[2], pin[3], frozenset())
        elif (found := _HASH.match(line)) and name is not None:
            pins[name] = Pin(pins[name].version, pins[name].marker, pins[name].hashes | {found[1]})
        else:
            msg = f"neither a pin nor a hash: {line[:80]}"
            raise ValueError(msg)
    return pins


def environments() -> Iterator[dict[str, str]]:
    """Yield the marker variables of every Python on every platform that the locks serve."""
    for version in PYTHONS:
        for system, machine in PLATFORMS:
            yield {
                "python_version": version.rsplit(".", 1)[0],
                "python_full_version": version,
                "implementation_version": version,
                "implementation_name": "cpython",
                "platform_python_implementation": "CPython",
                "sys_platform": system,
                "platform_system": {"linux": "Linux", "darwin": "Darwin"}[system],
                "platform_machine": machine,
                "os_name": "posix",
                "platform_release": "",
                "platform_version": "",
            }


@cache
def _requirement(text: str) -> Requirement:
    return Requirement(text)


def _holds(marker: Marker | None, environment: dict[str, str], extra: str = "") -> bool:
    return marker is None or marker.evaluate({**environment, "extra": extra})


def _is_ever_wanted(marker: str | None) -> bool:
    """Return whether a pin with this marker is installed on any Python and platform that the locks serve."""
    return marker is None or any(_holds(Marker(marker), environment) for environment in environments())


@cache
def _tags(python_version: str, system: str, machine: str) -> frozenset[Tag]:
    major, minor = (int(part) for part in python_version.split("."))
    if system == "darwin":
        platforms = list(mac_platforms(_MACOS, machine))
    else:
        named = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        platforms = [f"linux_{machine}"]
        for glibc in range(_GLIBC, 4, -1):
            platforms.append(f"manylinux_2_{glibc}_{machine}")
            platforms.extend([f"{named[glibc]}_{machine}"] if glibc in named else [])
    python = (major, minor)
    return frozenset(
        (*cpython_tags(python, platforms=platforms), *compatible_tags(python, f"cp{major}{minor}", platforms))
    )


def _tags_of(environment: dict[str, str]) -> frozenset[Tag]:
    return _tags(environment["python_version"], environment["sys_platform"], environment["platform_machine"])


def faults(lock: Lock, roots: list[str], packages: dict[str, Package]) -> list[str]:
    """Return what keeps the lock from being installed as it is, one sentence each; empty when it is closed and whole.

    `roots` are the requirements that the lock was made from, `packages` is what `requirements.json` holds.
    """
    found: dict[str, None] = {}
    for name, pin in lock.items():
        if _is_ever_wanted(pin.marker) and packages.get(name, {}).get("version") != pin.version:
            found[f"{name} {pin.version} is not described in requirements.json"] = None
    for environment in environments():
        where = f"Python {environment['python_full_version']}, {environment['sys_platform']} "
        where += environment["platform_machine"]
        tags = _tags_of(environment)
        waiting = [("the project", _requirement(root), "") for root in roots]
        seen: set[tuple[str, str]] = set()
        while waiting:
            asker, requirement, extra = waiting.pop()
            if not _holds(requirement.marker, environment, extra):
                continue
            name = canonicalize_name(requirement.name)
            pin = lock.get(name)
            if pin is None or not _holds(Marker(pin.marker) if pin.marker else None, environment):
                found[f"{where}: {asker} requires {requirement}, which is not pinned"] = None
                continue
            if not requirement.specifier.contains(pin.version, prereleases=True):
                found[f"{where}: {asker} requires {requirement}, but {pin.version} is pinned"] = None
            for wanted in ("", *requirement.extras):
                if (name, wanted) not in seen:
                    seen.add((name, wanted))
                    requires = packages.get(name, {}).get("requires", [])
                    waiting.extend((name, _requirement(text), wanted) for text in requires)
            found.update(dict.fromkeys(_missing_file(name, pin, packages.get(name, {}), tags, where)))
    return list(found)


def _missing_file(name: str, pin: Pin, package: Package, tags: frozenset[Tag], where: str) -> Iterator[str]:
    """Yield one sentence if no file fits, or one for each fitting file whose hash the lock lacks."""
    fits = [(file, digest) for file, digest in package.get("files", {}).items() if _fits(file, tags)]
    if not fits:
        yield f"{where}: no file of {name} {pin.version} fits"
    for file, digest in fits:
        if digest not in pin.hashes:
            yield f"the hash of {file} is missing"


@cache
def _fits(file: str, tags: frozenset[Tag]) -> bool:
    try:
        return not tags.isdisjoint(parse_wheel_filename(file)[3])
    except InvalidWheelFilename:
        return True  # a source archive fits everywhere


def sources(root: Path = ROOT) -> dict[str, list[str]]:
    """Return each lock's file name and the requirements that it is made from."""
    described = tomllib.loads((root / "pyproject.toml").read_text())
    project = described["project"]
    return {
        "requirements-build.lock": described["build-system"]["requires"],
        "requirements.lock": project["dependencies"],
        "requirements-dev.lock": [*project["dependencies"], *project["optional-dependencies"]["dev"]],
    }


def check(folder: Path = ROOT / "ops") -> list[str]:
    """Return what is wrong with the locks in a folder, one sentence each."""
    packages = json.loads((folder / "requirements.json").read_text())
    locks = {name: read_lock((folder / name).read_text()) for name in sources()}
    found = [f"{name}: {fault}" for name, roots in sources().items() for fault in faults(locks[name], roots, packages)]
    for name, lock in locks.items():
        for package, pin in lock.items():
            other = locks["requirements-dev.lock"].get(package)
            if other is not None and other != pin:
                found.append(f"{name}: {package} is pinned otherwise than in requirements-dev.lock")
    return found


def make(folder: Path = ROOT / "ops") -> None:
    """Resolve every lock with the newest releases, and describe what they pin."""
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        venv.create(scratch / "venv", with_pip=True)
        python = str(scratch / "venv/bin/python")
        _run(python, "-m", "pip", "install", "--quiet", RESOLVER)
        for name, roots in reversed(sources().items()):  # the largest first: the others are parts of it
            (scratch / "roots.in").write_text("\n".join(roots) + "\n")
            part = [] if name == "requirements-dev.lock" else ["--constraint", str(folder / "requirements-dev.lock")]
            resolve = [str(scratch / "venv/bin/uv"), "pip", "compile", "--quiet", "--no-config", "--universal"]
            resolve += ["--python-version", "3.11", *part, str(scratch / "roots.in")]
            pins = ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header", "--no-annotate"]
            _run(*resolve, *pins, "--upgrade", "-o", str(folder / name))
            if not part:
                again = ["--constraint", str(folder / name), "--format", "pylock.toml"]
                _run(*resolve, *again, "-o", str(scratch / "pylock.toml"))
        described = tomllib.loads((scratch / "pylock.toml").read_text())["packages"]
        described = [package for package in described if _is_ever_wanted(package.get("marker"))]
        packages = _describe(described, python, scratch / "downloads")
    (folder / "requirements.json").write_text(json.dumps(packages, indent=1, sort_keys=True) + "\n")


def _describe(described: list[dict[str, Any]], python: str, downloads: Path) -> dict[str, Package]:
    """Return what each package requires, and the hashes of its files that fit one of our environments."""
    pins = [f"{package['name']}=={package['version']}" for package in described]
    _run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(downloads), *pins)
    requires = dict(_requirements(path) for path in downloads.iterdir())
    every = frozenset(tag for environment in environments() for tag in _tags_of(environment))
    packages = {}
    for package in described:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        named = {file["url"].rsplit("/", 1)[1].replace("%2B", "+"): file["hashes"]["sha256"] for file in files}
        packages[canonicalize_name(package["name"])] = {
            "version": package["version"],
            "requires": requires[canonicalize_name(package["name"])],
            "files": {name: digest for name, digest in named.items() if _fits(name, every)},
        }
    return packages


def _requirements(path: Path) -> tuple[NormalizedName, list[str]]:
    """Return the name of a downloaded package and what its metadata says that it requires."""
    try:
        name = parse_wheel_filename(path.name)[0]
    except InvalidWheelFilename:
        try:
            name = parse_sdist_filename(path.name)[0]
        except InvalidSdistFilename:
            sys.exit(f"{path.name} is neither a wheel nor a source archive")
        sys.exit(f"{name} has no wheel here; its requirements can't be read without building it")
    with zipfile.ZipFile(path) as wheel:
        inside = next(entry for entry in wheel.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(inside).decode())
    return name, metadata.get_all("Requires-Dist") or []


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 (our own tools, no shell)


def main(arguments: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    if arguments == ["make"]:
        make()
    elif arguments != ["check"]:
        print(__doc__, file=sys.stderr)
        return 2
    wrong = check()
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
