# The commands of this project. Everything runs in .venv, which `make setup` makes and keeps up to date.
#   PYTHON=python3.12   the interpreter that .venv is made with
#   VARIANT=cpu|gpu     which installation (default: gpu where nvidia-smi works)
#   ARGS="..."          passed on: `make run ARGS="--rounds 5"`, `make test ARGS="-k recycle"`

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VARIANT ?= auto
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(PYTHON) scripts/setup_environment.py --venv $(VENV) --variant $(VARIANT)
PYTEST := $(BIN)/python -m pytest --timeout 600
FAST := not slow and not model and not vllm
ALONE := browser or model or vllm
SIDE_BY_SIDE := -n auto --maxprocesses 8
TEST_MODEL := smollm2-135m

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-vllm run test test-fast test-model attack bench gpu-check notebooks docs gpu-pins lint format typecheck clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## make or update .venv with what running needs
	@$(SETUP)

setup-dev:  ## the same with what testing and checking need
	@$(SETUP) --extra dev --extra vllm

setup-vllm:  ## the same with the CPU build of vLLM (on a GPU machine vLLM comes with setup)
	@$(SETUP) --extra vllm

run: setup  ## set up, then train with the quickstart preset and print a report
	@$(BIN)/workbench run quickstart $(ARGS)

# The quick tests, then the other ones, file by file side by side, then those that need a browser, a real model or vLLM, one by one: they use all
# cores themselves. Exit code 5 is "no test chosen": ARGS may choose among one kind only.
test: setup-dev test-model  ## set up, then the whole test suite
	@none=5; \
	one() { "$$@"; code=$$?; [ $$code -eq 5 ] || { [ $$code -eq 0 ] || exit $$code; none=0; }; }; \
	one $(PYTEST) $(SIDE_BY_SIDE) -m "$(FAST)" $(ARGS); \
	one $(PYTEST) $(SIDE_BY_SIDE) --dist loadfile -m "slow and not ($(ALONE))" $(ARGS); \
	one $(PYTEST) -m "$(ALONE)" $(ARGS); \
	exit $$none

test-fast: setup-dev  ## the quick tests, side by side
	@$(PYTEST) $(SIDE_BY_SIDE) -m "$(FAST)" $(ARGS)

# The small real language model for the tests marked `model`. Where it cannot be had they are skipped, except in CI.
test-model: setup-dev
	@$(BIN)/workbench models get $(TEST_MODEL) || { \
		if [ -n "$$CI$$REQUIRE_MODEL" ]; then \
			echo "make test: the tests need the model $(TEST_MODEL) and it cannot be had (see above)." >&2; exit 1; \
		fi; \
		echo "make test: going on without the model $(TEST_MODEL); the tests marked \"model\" are skipped." >&2; }

attack: setup-dev  ## every attack of docs/security.md against a started app
	@$(PYTEST) -rA --show-capture=no tests/test_app_security.py tests/test_app_holes.py tests/test_app_attacks.py tests/test_app_walk.py $(ARGS)

bench:  ## ours beside its peers, timed; results go to benchmarks/results/
	@$(SETUP) --extra bench
	@$(BIN)/workbench bench $(ARGS)

gpu-check: setup-dev  ## on a machine with a GPU: equality, memory, speed, a finding a line (8 minutes at most)
	@$(BIN)/python -m benchmarks.gpu.check $(ARGS)

notebooks: setup-dev  ## write notebooks/*.ipynb anew from the .py beside them
	@$(BIN)/python scripts/notebook_pairs.py

# Material's notice about mkdocs 2 is for its own users to read: docs/dependencies.md says what follows.
docs: setup-dev  ## the documentation as a site in build/site; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

gpu-pins: setup-dev  ## an installation with a GPU resolves, for every Python (a minute; nothing is downloaded)
	@$(BIN)/python scripts/gpu_constraints.py --check $(ARGS)

lint: setup-dev  ## ruff: rules and format; notebooks equal to their sources
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python scripts/notebook_pairs.py --check

format: setup-dev  ## let ruff rewrite what it can
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

typecheck: setup-dev  ## mypy, strict
	@$(BIN)/python -m mypy

clean:  ## remove .venv, caches and build output; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
