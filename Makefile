# Two commands for a fresh machine: make sample, make test. Each does all of its own set-up.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
OUT    ?= out

.PHONY: sample test fast lint format clean

sample: $(VENV)/.base
	$(BIN)/zoo sample image/fashion-ddpm -n 16 --seed 0 -o $(OUT)

test: $(VENV)/.test lint
	$(BIN)/python -m pytest -m "not gpu and not online and not data"

fast: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check zoo tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format zoo tests benchmarks

# A stamp a set of packages: a second call installs nothing, a change of pyproject.toml installs again.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "zoo needs Python 3.10 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "this Python has no venv: install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@ $(VENV)/.base

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
