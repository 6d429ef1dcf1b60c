"""The distribution `vigil-client`, built and installed as a user would, and an interpreter that has nothing else."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "worker" / "client"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True)
class InstalledClient:
    """`wheel`: the file; `site`: where it is installed; `dependencies`: a folder with what it requires, no more."""

    wheel: Path
    site: Path
    dependencies: Path

    async def python(self, script: str, **environ: str) -> Process:
        """Start an interpreter that can import the standard library, the client and its dependencies."""
        start = f"import sys; sys.path += [{str(self.site)!r}, {str(self.dependencies)!r}]\n"
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-W", "error", "-c", start + script),
            env=environ,
            stdout=PIPE,
            stderr=PIPE,
        )


def copy_of_the_source(folder: Path) -> Path:
    """Copy the source, so that building leaves nothing in the working tree."""
    ignored = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")
    return Path(shutil.copytree(SOURCE, folder, ignore=ignored))


def build_wheel(source: Path, out: Path) -> Path:
    """Build the wheel without a network."""
    _run(*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source))
    (wheel,) = out.glob("*.whl")
    return wheel


def installed_once(folder: Path) -> InstalledClient:
    """Return the client as it is installed in `folder`, by this process or by another one that runs tests."""
    done = folder / "done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not done.exists():
            install(folder)
            done.touch()
    (wheel,) = (folder / "dist").glob("*.whl")
    return InstalledClient(wheel, folder / "site", folder / "dependencies")


def install(folder: Path) -> None:
    """Build the client, install it into `folder` and link its dependencies beside it."""
    wheel = build_wheel(copy_of_the_source(folder / "source"), folder / "dist")
    site, dependencies = folder / "site", folder / "dependencies"
    _run(*PIP, "install", "--no-index", "--no-deps", "--target", str(site), str(wheel))
    (client,) = metadata.distributions(path=[str(site)])
    dependencies.mkdir()
    for name in required_by(client):
        package = metadata.distribution(name)
        for top in {file.parts[0] for file in package.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            (dependencies / top).symlink_to(package.locate_file(top))


def required_by(package: metadata.Distribution) -> set[str]:
    """Return the names of all that this package requires on this machine, directly and indirectly, without extras."""
    found: set[str] = set()
    open_ = [package]
    while open_:
        for requirement in map(Requirement, open_.pop().requires or ()):
            name = canonicalize_name(requirement.name)
            if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                found.add(name)
                open_.append(metadata.distribution(name))
    return found


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
