# Everything a fresh clone needs is Python 3.11 or newer and make. All recipes work inside .venv.

SHELL := /bin/sh
BIN := .venv/bin
# The first interpreter that runs, is new enough and can make environments (a version manager's shims may do neither).
FINDS_PYTHON = for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; exit 0; }; \
	done; exit 0

.PHONY: help install demo test lint lint-ops bench soak locks clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

install: .venv/.installed  ## Make .venv with the pinned packages and `vigil`.

.venv/.installed: ops/requirements-dev.lock pyproject.toml
	@python=$$($(FINDS_PYTHON)); \
	if [ -z "$$python" ]; then echo "Vigil needs Python 3.11 or newer with its venv module; none was found." >&2; exit 2; fi; \
	if [ ! -x $(BIN)/python ]; then echo "making .venv with $$python"; "$$python" -m venv .venv; fi
	@echo "installing the pinned packages"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r ops/requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install  ## One job per outcome against the simulator; needs no key and no network.
	@$(BIN)/vigil demo

test: lint  ## Lint, then all tests.
	$(BIN)/python -m pytest -n 3

lint: install  ## ruff, import-linter, mypy.
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

lint-ops: install  ## What ops ship: image, compose, Kubernetes, proxy, rules, dashboard, runbook.
	$(BIN)/python -m pytest tests/ops/test_ops_containers.py tests/ops/test_ops_watch.py tests/ops/test_ops_proxy.py -rs

bench: install  ## Load against a local Vigil; prints a table.
	$(BIN)/python ops/bench/run.py

soak: install  ## 2,000 jobs in five minutes under random faults; prints the counts.
	$(BIN)/python tests/chaos/soak.py

# Only for whoever changes the dependencies; needs uv (`pip install uv` in .venv). The files hold no addresses.
locks:  ## Pin all packages again.
	$(BIN)/uv pip compile $(PINS) pyproject.toml -o ops/requirements.lock
	$(BIN)/uv pip compile $(PINS) pyproject.toml --extra dev -o ops/requirements-dev.lock

PINS := --quiet --python-version 3.11 --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --no-annotate

clean:  ## Remove what make and the tools made; keeps .vigil, where jobs are.
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
