"""Containers, checked without an engine: schemas, linters, and what no schema knows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from ops_server import CONF, ROOT, secrets, server
from waiting import LIMIT

from worker.settings import Settings
from worker.store.stats.metrics import ScaleDemand
from worker.telemetry.sentry import _MONITORS
from worker.telemetry.sentry_issues import CAUSES

BIN = Path(sys.executable).parent
COMPOSE = ROOT / "docker-compose.yml"
K8S = ROOT / "ops" / "k8s"
SCRIPTS = sorted((ROOT / "ops").rglob("*.sh"))
SECRETS = "/run/secrets"


def output_of(*words: object) -> str:
    """What a tool says; fails when it objects."""
    result = subprocess.run(
        [str(w) for w in words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def kinds(documents: list[dict[str, Any]], *wanted: str) -> list[dict[str, Any]]:
    return [one for one in documents if one["kind"] in wanted]


def rendered(overlay: str, home: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here, so the overlays can't be put together")
    command = [kubectl, "kustomize", str(K8S / "overlays" / overlay)]
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(params=["trial", "production"])
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(rendered(request.param, tmp_path)) if one]


# ---- files


def test_all_yaml_is_well_written() -> None:
    files = [COMPOSE, *sorted((ROOT / "ops").rglob("*.y*ml"))]
    output_of(BIN / "yamllint", "--strict", "-c", ROOT / "ops" / ".yamllint", *files)


def test_the_image_is_well_written() -> None:
    output_of(BIN / "hadolint", ROOT / "ops" / "Dockerfile")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell(script: Path) -> None:
    output_of("sh", "-n", script)
    assert script.stat().st_mode & 0o111
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "set -eu" in script.read_text()
    if shellcheck := shutil.which("shellcheck"):
        output_of(shellcheck, script)


def test_the_image_runs_as_nobody_and_ends_when_told() -> None:
    text = (ROOT / "ops" / "Dockerfile").read_text()
    last = text[text.rindex("\nFROM ") :]
    for wanted in ("USER 10001:10001", 'ENTRYPOINT ["vigil"]', "STOPSIGNAL SIGTERM", 'CMD ["vigil", "health", "api"]'):
        assert wanted in last
    assert "--require-hashes" in text
    assert not re.search(
        r"^FROM \S+(:latest)?( AS|$)(?<!bookworm)", text.replace("-bookworm", "-bookworm"), re.MULTILINE
    ) or all(":" in line.split()[1] and ":latest" not in line for line in text.splitlines() if line.startswith("FROM "))


def test_the_image_gets_only_what_it_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored  # all stays out but what is named
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "ops" / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert f"!{name}" in ignored
        assert (ROOT / name).exists()


# ---- compose


def test_compose_follows_its_schema() -> None:
    output_of(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_compose_names_only_what_there_is(compose: dict[str, Any], tmp_path: Path) -> None:
    made = secrets(tmp_path / "secrets", "valkey:6379")
    services = compose["services"]
    for name, one in services.items():
        assert set(one.get("depends_on", {})) <= set(services), name
        assert set(one.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(one["networks"]) <= set(compose["networks"]), name
        for mount in one.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), source
    for secret in compose["secrets"].values():
        assert Path(secret["file"]).parent == Path("secrets")
        assert Path(secret["file"]).name in made


def test_compose_gives_each_service_what_a_service_needs(compose: dict[str, Any]) -> None:
    for name, one in compose["services"].items():
        assert one["read_only"] is True, name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"\d+:\d+", one["user"]), name
        assert one["init"] is True, name
        if name == "backup":  # a command that ends
            assert (one["restart"], one["profiles"]) == ("no", ["backup"])
        else:
            assert one["restart"] == "unless-stopped", name
            assert one["healthcheck"]["test"], name
        assert one["logging"]["options"]["max-size"], name
        assert one["mem_limit"], name
        assert one["pids_limit"], name
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", [])), name
        assert "latest" not in one["image"], name
        for target in one.get("depends_on", {}).values():
            assert target["condition"] == "service_healthy"


def test_compose_hands_every_secret_over_as_a_file_that_is_read(compose: dict[str, Any]) -> None:
    known = {
        str(field.validation_alias) if field.validation_alias else f"VIGIL_{name.upper()}"
        for name, field in Settings.model_fields.items()
    } | {"VIGIL_URL"}  # of commands that are clients of the API
    for name, one in compose["services"].items():
        if name == "backup":  # not a process of Vigil: see ops/backup.py
            continue
        mounted = set(one.get("secrets", []))
        for variable, value in one.get("environment", {}).items():
            assert variable.removesuffix("_FILE") in known, variable
            assert not re.search(r"SECRET$|KEYS?$|DSN$|REDIS_URL$", variable), f"{name}: {variable} is no file"
            if variable.endswith("_FILE"):
                assert Path(value).parent == Path(SECRETS)
                mounted.remove(Path(value).name)
        mounted -= {word.removeprefix(f"{SECRETS}/") for word in one["command"]}
        assert mounted == set(), f"{name} is given a secret that it doesn't read"


def test_compose_waits_longer_than_a_worker_drains(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    grace = int(worker["stop_grace_period"].removesuffix("s"))
    assert grace >= int(worker["environment"]["VIGIL_DRAIN_SECONDS"]) + 10 + 5  # + the last commits


def test_only_vigil_reaches_valkey_in_compose(compose: dict[str, Any]) -> None:
    assert compose["services"]["valkey"]["networks"] == ["inner"]
    assert compose["networks"]["inner"]["internal"] is True
    assert "ports" not in compose["services"]["valkey"]


# ---- Kubernetes


def test_kubernetes_takes_every_object(overlay: list[dict[str, Any]], tmp_path: Path) -> None:
    own = [one for one in overlay if not one["apiVersion"].startswith("keda.sh/")]
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(own))
    output_of(BIN / "kubernetes-validate", "--strict", "--no-warn", file)


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    text = rendered("trial", tmp_path).replace("terminationGracePeriodSeconds", "terminationGraceSeconds")
    (tmp_path / "all.yaml").write_text(text)
    with pytest.raises(AssertionError, match="terminationGraceSeconds"):
        output_of(BIN / "kubernetes-validate", "--strict", "--no-warn", tmp_path / "all.yaml")


def test_keda_takes_its_objects() -> None:
    schema = yaml.safe_load((K8S / "keda.schema.json").read_text())
    documents = list(yaml.safe_load_all((K8S / "overlays" / "production" / "scaling.yaml").read_text()))
    keda = [one for one in documents if one["apiVersion"].startswith("keda.sh/")]
    assert [one["kind"] for one in keda] == ["ScaledObject", "TriggerAuthentication"]
    for one in keda:
        jsonschema.validate(one, schema)
    broken = yaml.safe_load(yaml.safe_dump(keda[0]).replace("pollingInterval", "poolingInterval"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_every_pod_is_closed(overlay: list[dict[str, Any]]) -> None:
    for one in kinds(overlay, "Deployment", "StatefulSet"):
        pod = one["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            closed = container["securityContext"]
            assert closed["allowPrivilegeEscalation"] is False
            assert closed["readOnlyRootFilesystem"] is True
            assert closed["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert probe in container


def test_every_workload_has_a_budget_a_policy_and_secrets_that_are_made(
    overlay: list[dict[str, Any]], tmp_path: Path
) -> None:
    made = set(secrets(tmp_path / "secrets", "valkey:6379"))

    def selected(kind: str, *path: str) -> set[str]:
        found = set()
        for one in kinds(overlay, kind):
            selector: Any = one["spec"]
            for step in path:
                selector = selector[step]
            found.add(selector.get("matchLabels", {}).get("app.kubernetes.io/name"))
        return found

    deployments = {one["metadata"]["name"] for one in kinds(overlay, "Deployment")}
    assert deployments == {"vigil-api", "vigil-worker"}
    assert deployments <= selected("PodDisruptionBudget", "selector")
    assert deployments <= selected("NetworkPolicy", "podSelector")
    for one in kinds(overlay, "Deployment", "StatefulSet"):
        pod = one["spec"]["template"]["spec"]
        items = [item["key"] for volume in pod["volumes"] if "secret" in volume for item in volume["secret"]["items"]]
        assert set(items) <= made
        named = [entry["value"] for entry in pod["containers"][0].get("env", []) if entry["name"].endswith("_FILE")]
        assert {Path(value).name for value in named} <= set(items)


def test_the_doctor_in_a_workers_pod_reaches_the_api(overlay: list[dict[str, Any]]) -> None:
    worker = next(one for one in kinds(overlay, "Deployment") if one["metadata"]["name"] == "vigil-worker")
    entries = worker["spec"]["template"]["spec"]["containers"][0]["env"]
    address = urlsplit(next(entry["value"] for entry in entries if entry["name"] == "VIGIL_URL"))
    service = next(one for one in kinds(overlay, "Service") if one["metadata"]["name"] == address.hostname)
    assert address.port in [port["port"] for port in service["spec"]["ports"]]
    policy = next(one for one in kinds(overlay, "NetworkPolicy") if one["metadata"]["name"] == "vigil-worker")
    assert any(
        {"podSelector": {"matchLabels": service["spec"]["selector"]}} in rule["to"]
        and address.port in [port["port"] for port in rule["ports"]]
        for rule in policy["spec"]["egress"]
    )


def test_the_ways_out_are_those_of_the_webhooks(overlay: list[dict[str, Any]]) -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    policy = next(one for one in kinds(overlay, "NetworkPolicy") if one["metadata"]["name"] == "vigil-worker")
    public = next(rule for rule in policy["spec"]["egress"] if any("ipBlock" in to for to in rule["to"]))
    assert {port["port"] for port in public["ports"]} == set(settings.webhook_ports)
    closed = {block for to in public["to"] for block in to["ipBlock"]["except"]}
    assert {"169.254.0.0/16", "10.0.0.0/8", "fc00::/7"} <= closed


def test_without_redis_a_node_can_be_drained_of_apis_and_workers_stay(overlay: list[dict[str, Any]]) -> None:
    budgets = {one["metadata"]["name"]: one["spec"] for one in kinds(overlay, "PodDisruptionBudget")}
    policies = {name: spec["unhealthyPodEvictionPolicy"] for name, spec in budgets.items()}
    assert policies == {"vigil-api": "AlwaysAllow", "vigil-worker": "IfHealthyBudget"}


def test_a_scaler_never_ends_the_last_worker() -> None:
    documents = yaml.safe_load_all((K8S / "overlays" / "production" / "scaling.yaml").read_text())
    spec = next(one for one in documents if one["kind"] == "ScaledObject")["spec"]
    assert spec["minReplicaCount"] >= 1
    assert "cooldownPeriod" not in spec, "it is for those who scale to zero"
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["valueLocation"] in ScaleDemand.__dataclass_fields__
    assert int(trigger["metadata"]["targetValue"]) < Settings(_env_file=None).max_jobs  # type: ignore[call-arg]
    assert trigger["metricType"] == "AverageValue", "the fallback works for no other"


def test_a_worker_pod_outlives_its_drain(overlay: list[dict[str, Any]]) -> None:
    settings = next(one["data"] for one in kinds(overlay, "ConfigMap"))
    worker = next(one for one in kinds(overlay, "Deployment") if one["metadata"]["name"] == "vigil-worker")
    grace = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= int(settings["VIGIL_DRAIN_SECONDS"]) + 10 + 5
    assert grace <= 120  # what the strictest platforms grant


def test_the_trial_valkey_is_set_up_like_ours(tmp_path: Path) -> None:
    trial = list(yaml.safe_load_all((K8S / "overlays" / "trial" / "valkey.yaml").read_text()))
    words = next(one for one in trial if one["kind"] == "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    options = [word for word in words["args"] if not word.startswith(("--dir", "--aclfile"))]
    names = [line.split()[0] for line in CONF.read_text().splitlines() if line and not line.startswith("#")]
    with server(tmp_path / "a") as server_here, server(tmp_path / "b", *options, conf=None) as server_there:
        assert server_here.client().config_get(*names) == server_there.client().config_get(*names)
    assert [word.split()[0].removeprefix("--") for word in options] == names


def test_no_file_of_ops_names_a_registry_or_a_key() -> None:
    for path in [COMPOSE, *(p for p in (ROOT / "ops").rglob("*") if p.is_file() and p.suffix != ".lock")]:
        text = path.read_text(errors="replace")
        assert not re.search(r"\b(docker|ghcr|quay|gcr|pypi|npmjs)\.(io|org|com|dev)\b", text), path
        assert not re.search(r"\bsk-[A-Za-z0-9]{20,}", text), path


# ---- Sentry


def test_sentrys_definitions_parse_and_name_what_we_send(tmp_path: Path) -> None:
    text = (ROOT / "ops" / "sentry" / "main.tf").read_text()
    named = re.findall(r'^    "([a-z_.-]+)"\s+= \d+$', text, re.MULTILINE)
    assert sorted(named) == sorted(CAUSES)
    assert set(re.findall(r'"(vigil-[a-z]+)"', text)) == set(_MONITORS.values())
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not here, so the syntax can't be checked")
    (tmp_path / "main.tf").write_text(text)
    output_of(terraform, "fmt", "-check", "-diff", tmp_path / "main.tf")
