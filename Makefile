# `make` lists the targets. Each one sets up what it needs; see scripts/setup.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PY := .venv/bin/python
# Another interpreter: make test PYTHON=python3.13
export PYTHON

.PHONY: help setup setup-dev setup-openai2 setup-frameworks demo test check static fmt lint types bench bench-store bench-postgres bench-memory bench-recovery soak lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: setup-dev setup-openai2 setup-frameworks ## Make .venv (all extras and tools), .venv/envs/openai2 and .venv/envs/frameworks.

setup-dev:
	@scripts/setup dev

setup-openai2: setup-dev
	@scripts/setup openai2

setup-frameworks: setup-dev
	@scripts/setup frameworks

demo: setup-dev ## Run the demo: lose a conversation at an embedded provider, watch it come back.
	@.venv/bin/perdure demo

test: setup ## Run every test.
	@$(PY) -m pytest -n 2 --dist worksteal

check: static ## Check format, lint and types, and run the fast tests.
	@$(PY) -m pytest -n 2 --dist worksteal -m "not slow"

static: setup ## Check format, lint and types only.
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

fmt: setup-dev ## Format the code and apply the safe lint fixes.
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

lint: setup-dev ## Lint the code.
	@$(PY) -m ruff check .

types: setup-dev ## Check the types.
	@$(PY) -m mypy

bench: setup-dev ## Measure what a turn costs with and without perdure.
	@$(PY) -m benchmarks.turn

bench-store: setup-dev ## Measure how much many writers gain by sharing commits.
	@$(PY) -m benchmarks.store

bench-postgres: setup-dev ## Measure what a turn costs on PostgreSQL, with a short and a long history.
	@$(PY) -m benchmarks.postgres

bench-memory: setup-dev ## Measure what survives a small budget: DATA=folder of conversations with questions.
	@test -n "$(DATA)" || { echo "make bench-memory DATA=folder (see benchmarks/memory.py)"; exit 2; }
	@$(PY) -m benchmarks.memory $(DATA)

bench-recovery: setup-dev ## Measure what a recovery costs as the history grows.
	@$(PY) -m benchmarks.recovery

SECONDS = 300
soak: setup-dev ## Simulate new histories of crashes and losses for SECONDS; prints the seed of each that fails.
	@$(PY) -m perdure.testing.simulator --seconds $(SECONDS)

# `make lock UPGRADE=--upgrade` moves every pin to the newest version.
COMPILE = .venv/bin/uv pip compile -q pyproject.toml --universal --python-version 3.11 \
	--generate-hashes --no-config --system-certs --custom-compile-command "make lock" $(UPGRADE)
lock: setup-dev ## Write requirements/*.txt anew from pyproject.toml (UPGRADE=--upgrade for newest pins).
	@$(COMPILE) --all-extras --group dev -o requirements/dev.txt
	@$(COMPILE) --group openai2 -o requirements/openai2.txt
	@$(COMPILE) --group frameworks -o requirements/frameworks.txt

clean: ## Remove .venv, caches and build results.
	@rm -rf .venv .setup.lock build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
