"""Writes the software bill of materials of what Vigil runs on: CycloneDX 1.6 as JSON, from the lock.

    python ops/sbom.py [FILE]      the default is sbom.cdx.json

It lists every package that `ops/requirements.lock` pins for a Python and a platform that is served: version, package
URL, the files that may be installed with their SHA-256, what it requires, and its licence as the installed package
states it. The lock and `ops/requirements.json` hold nearly all of that, and know it for every platform; a generator
would look at one environment. The same lock gives the same document, byte for byte, so it has no time.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parent))
import locks

OUTPUT = "sbom.cdx.json"
_LOCK = "requirements.lock"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What older packages say of their licence, as SPDX names it; a BSD licence without a number has three clauses."""
_LONGEST_NAME = 100  # a longer text in the field for the licence is the licence itself

Json = dict[str, Any]


def document(root: Path = locks.ROOT) -> Json:
    """Return the bill of materials."""
    text = (root / "ops" / _LOCK).read_text()
    packages: dict[str, Json] = json.loads((root / "ops/requirements.json").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    pins = {name: pin for name, pin in locks.read_lock(text).items() if locks._is_ever_wanted(pin.marker)}  # noqa: SLF001
    main = f"pkg:pypi/{project['name']}@{project['version']}"
    described: Json = {
        "component": {
            "type": "application",
            "bom-ref": main,
            "name": project["name"],
            "version": project["version"],
            "description": project["description"],
            "purl": main,
            "licenses": [{"license": {"id": project["license"]["text"]}}],
        },
        "lifecycles": [{"phase": "build"}],
        "tools": {"components": [{"type": "application", "name": "ops/sbom.py", "version": project["version"]}]},
    }
    refs = {name: f"pkg:pypi/{name}@{pin.version}" for name, pin in pins.items()}
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(hashlib.sha256(text.encode()).hexdigest()[:32], version=4)}",
        "version": 1,
        "metadata": described,
        "components": [_component(name, refs[name], pin, packages[name]) for name, pin in sorted(pins.items())],
        "dependencies": [
            {"ref": main, "dependsOn": _required(project["dependencies"], refs, packages)},
            *(
                {"ref": refs[name], "dependsOn": _required(packages[name]["requires"], refs, packages)}
                for name in sorted(pins)
            ),
        ],
    }


def _component(name: str, ref: str, pin: locks.Pin, package: Json) -> Json:
    files = {file: digest for file, digest in sorted(package["files"].items()) if digest in pin.hashes}
    found: Json = {
        "type": "library",
        "bom-ref": ref,
        "name": name,
        "version": pin.version,
        "purl": ref,
        "externalReferences": [
            {"type": "distribution", "url": file, "hashes": [{"alg": "SHA-256", "content": digest}]}
            for file, digest in files.items()
        ],
    }
    if licenses := _licenses(name):
        found["licenses"] = licenses
    if pin.marker is not None:
        found["properties"] = [{"name": "vigil:marker", "value": pin.marker}]
    return found


def _licenses(name: str) -> list[Json]:
    """Return the licence as the installed package states it, by its SPDX name if it has one; none of another one."""
    try:
        stated = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return []  # of another platform
    text = stated.get("License-Expression") or stated.get("License") or ""
    for one in (text, *_classified(stated.get_all("Classifier") or [])):
        try:
            expression = canonicalize_license_expression(one)
        except InvalidLicenseExpression:
            continue
        simple = re.fullmatch(r"[A-Za-z0-9.+-]+", expression) is not None
        return [{"license": {"id": expression}}] if simple else [{"expression": expression}]
    return [{"license": {"name": text}}] if text and len(text) <= _LONGEST_NAME and "\n" not in text else []


def _classified(classifiers: list[str]) -> list[str]:
    """Return the SPDX names of the licences among these classifiers."""
    names = [one.rpartition(" :: ")[2] for one in classifiers if one.startswith("License :: ")]
    return [_CLASSIFIERS[name] for name in names if name in _CLASSIFIERS]


def _required(requirements: list[str], refs: dict[Any, str], packages: dict[str, Json]) -> list[str]:
    """Return the packages of the document that meet these requirements on any platform, extras included."""
    found: dict[str, None] = {}
    for requirement in map(Requirement, requirements):
        name = canonicalize_name(requirement.name)
        if name not in refs or not _is_ever_asked(requirement.marker):
            continue
        found[refs[name]] = None
        for extra in requirement.extras:  # what an extra adds is required by whoever asks for it
            for inner in map(Requirement, packages[name]["requires"]):
                inner_name = canonicalize_name(inner.name)
                if inner_name in refs and inner.marker is not None and _is_ever_asked(inner.marker, extra):
                    found[refs[inner_name]] = None
    return sorted(found)


def _is_ever_asked(marker: Marker | None, extra: str = "") -> bool:
    return any(locks._holds(marker, environment, extra) for environment in locks.environments())  # noqa: SLF001


def main(arguments: list[str]) -> int:
    """Write the document; return the exit code."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__, file=sys.stderr)
        return 2
    target = Path(arguments[0]) if arguments else locks.ROOT / OUTPUT
    made = document()
    target.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"{target}: {len(made['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
