# Commands for a fresh machine, make sample, make test, make docs: each does all of its own set-up.

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
OUT    ?= out
PIP     = $(BIN)/python -m pip --disable-pip-version-check install --quiet

# `pytest` alone runs the fast tests (pyproject.toml); this is what CI runs
CI_TESTS = not gpu and not online and not data
# one worker a core, each with one thread; files stay whole, as their tests share what is slow to build
PYTEST   = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: help sample test fast docs lint format clean

help:
	@echo "make sample   install zoo, sample image/fashion-ddpm into $(OUT)/"
	@echo "make test     install the test extras; lint, types, fast and slow tests"
	@echo "make fast     the fast tests          make lint     ruff and mypy"
	@echo "make docs     install the docs extra; the documentation as a site, in docs/_build/html"
	@echo "make format   format the code         make clean    remove .venv and caches"
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) OUT=$(OUT)"

sample: $(VENV)/.base
	$(BIN)/zoo sample image/fashion-ddpm -n 16 --seed 0 -o $(OUT)

test: $(VENV)/.test lint
	$(PYTEST) -m "$(CI_TESTS)"

fast: $(VENV)/.test
	$(PYTEST)

docs: $(VENV)/.docs
	$(BIN)/python benchmarks/docs_site.py docs/_build

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# One stamp for each set of packages: a second call installs nothing, a change of pyproject.toml installs again.
$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON): install Python 3.10 or newer, or say where it is: make PYTHON=/path/to/python3 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "zoo needs Python 3.10 or newer, $(PYTHON) is `$(PYTHON) -V 2>&1`: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv: install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	@echo "installing zoo into $(VENV) (PyTorch is large: this can take minutes)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	@echo "installing zoo and its test extras into $(VENV) (PyTorch is large: this can take minutes)"
	@$(PIP) --editable ".[test]"
	@touch $(VENV)/.base $@

$(VENV)/.docs: pyproject.toml | $(VENV)/bin/python
	@echo "installing zoo and its docs extra into $(VENV) (PyTorch is large: this can take minutes)"
	@$(PIP) --editable ".[docs]"
	@touch $(VENV)/.base $@

clean:
	rm -rf .venv build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find zoo tests -name __pycache__ -type d -prune -exec rm -rf {} +
