# A fresh clone needs Python 3.11 or newer with its venv module, and make. All recipes work inside .venv.

SHELL := /bin/sh
BIN := .venv/bin
.PHONY: help install install-dev demo test test-newest test-thorough test-cluster lint lint-ops test-clients test-containers typescript bench incidents soak locks sbom clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

install:  ## Make .venv with the pinned packages and `vigil`.
	@ops/install.sh

install-dev:
	@ops/install.sh dev

demo: install  ## One job per outcome against the simulator; needs no key and no network.
	@$(BIN)/vigil demo

test: lint  ## Lint, then all tests.
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-thorough: install-dev  ## All tests with every case that they know; takes two to three times as long.
	VIGIL_TEST_THOROUGH=1 $(BIN)/python -m pytest -n 4 --dist worksteal

test-cluster: install-dev  ## The tests of the store, in a cluster of one node.
	VIGIL_TEST_CLUSTER=1 $(BIN)/python -m pytest -n 4 --dist worksteal tests/store

lint: install-dev  ## ruff, import-linter, mypy, names and docstrings.
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python ops/style.py

lint-ops: install-dev  ## What ops ship: image, compose, Kubernetes, proxy, rules, dashboard, runbook.
	$(BIN)/python -m pytest tests/ops/test_ops_containers.py tests/ops/test_ops_watch.py tests/ops/test_ops_proxy.py -rs

test-clients: install-dev  ## OpenAI clients of others, unchanged (CLIENT=name for one); prints client x feature x result.
	@$(BIN)/python tests/clients/run.py $(CLIENT)

test-containers: install-dev  ## The image and the compose stack on a real engine: the machine's, else one of its own (root, Debian).
	VIGIL_TEST_CONTAINERS=1 $(BIN)/python -m pytest tests/containers -rs -v -p no:randomly

typescript: install-dev  ## Write the types of ops/clients/typescript anew from the OpenAPI document; needs npm.
	@mkdir -p .tools/typescript
	@cp ops/clients/typescript/package.json ops/clients/typescript/package-lock.json .tools/typescript
	@cd .tools/typescript && npm ci --silent --no-audit --no-fund
	@$(BIN)/python ops/clients/typescript/generate.py .tools/typescript

bench: install-dev  ## Load against a local Vigil; prints a table.
	$(BIN)/python ops/bench/run.py

incidents: install-dev  ## Eight incidents, as they show in Sentry; prints the list of issues. VIGIL_TEST_THOROUGH=1: 10,000 jobs.
	$(BIN)/python -m pytest -q -s tests/telemetry/test_telemetry_incidents.py -k eight

soak: install-dev  ## Half an hour of jobs under random faults; prints the counts. SOAK="--seconds 120 --jobs 500" for a short one.
	$(BIN)/python tests/chaos/soak.py $(SOAK)

test-newest:  ## The same tests with the newest releases that pyproject.toml admits, in an environment of their own.
	@ops/install.sh newest
	.tools/newest/bin/python -m pytest -n 4 --dist worksteal

locks: install-dev  ## Pin the newest releases that pyproject.toml admits; needs a network.
	@$(BIN)/python ops/locks.py make

sbom: install-dev  ## Write sbom.cdx.json (CycloneDX): the packages that Vigil runs on, from the lock.
	@$(BIN)/python ops/sbom.py

clean:  ## Remove what make and the tools made; keeps .vigil, where jobs are.
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
