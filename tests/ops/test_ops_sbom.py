"""`make sbom`: a CycloneDX document that the schema accepts, of exactly what the lock installs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from ops_server import ROOT
from packaging.utils import canonicalize_name
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parent / "cyclonedx"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    target = tmp_path_factory.mktemp("sbom") / "sbom.json"
    for _ in range(2):
        before = target.read_bytes() if target.exists() else None
        subprocess.run([sys.executable, "ops/sbom.py", str(target)], cwd=ROOT, check=True, capture_output=True)
    assert target.read_bytes() == before, "the same lock gives the same document"
    return json.loads(target.read_text())


def validator():
    schemas = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.schema.json")}
    whole = schemas["bom-1.6.SNAPSHOT.schema.json"]
    base = whole["$id"].rpartition("/")[0]  # the others are named beside it
    resources = [(f"{base}/{name}", Resource.from_contents(schema)) for name, schema in schemas.items()]
    return Draft7Validator(whole, registry=Registry().with_resources(resources))


def test_the_schema_of_cyclonedx_accepts_it(made):
    checker = validator()
    assert [error.message for error in checker.iter_errors(made)] == []
    assert list(checker.iter_errors({**made, "components": [{"name": "x"}]})), "the schema refuses what has no type"
    wrong = {**made["components"][0], "licenses": [{"license": {"id": "No-Such-Licence"}}]}
    assert list(checker.iter_errors({**made, "components": [wrong]})), "and a licence that SPDX does not know"


def test_it_lists_what_the_lock_installs_here_with_versions_hashes_and_licences(made):
    found = {one["name"]: one for one in made["components"]}
    lock = (ROOT / "ops/requirements.lock").read_text()
    pinned = {line.partition("==")[0] for line in lock.splitlines() if line[:1].isalnum()}
    assert set(found) <= pinned
    for name, one in found.items():
        assert one["purl"] == f"pkg:pypi/{name}@{one['version']}"
        assert one["externalReferences"], name
        for reference in one["externalReferences"]:
            assert f"sha256:{reference['hashes'][0]['content']}" in lock
            assert "/" not in reference["url"], "a file name, no address"
    installed = {canonicalize_name(one.metadata["Name"]): one.version for one in metadata.distributions()}
    here = {name for name in found if name in installed}
    assert {"arq", "redis", "openai", "pydantic", "sentry-sdk", "cryptography"} <= here
    assert {name: installed[name] for name in here} == {name: found[name]["version"] for name in here}
    assert [name for name in sorted(here) if "licenses" not in found[name]] == []


def test_every_package_is_reached_from_the_project(made):
    edges = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    waiting, reached = [made["metadata"]["component"]["bom-ref"]], set()
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += edges[ref]
    assert {one["bom-ref"] for one in made["components"]} <= reached
