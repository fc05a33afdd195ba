# One line each: what a newcomer types. The first call makes .venv, with the versions pinned in .ci/constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: study test lint bench llm clean

study: .venv/core          ## the main job: baselines on real pass rates, table and figure
	$(BIN)/python -m ebpo_sim.mse_study

test: .venv/test lint      ## lint, types and all tests
	$(BIN)/python -m pytest

lint: .venv/test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/core          ## the Monte Carlo engine against NumPy
	$(BIN)/python -m ebpo_sim.bench

llm: .venv/llm             ## RLVR of a tiny language model on two cores, nothing downloaded
	$(BIN)/python llm/train.py

.venv/made:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	touch $@

.venv/core: .venv/made pyproject.toml .ci/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable .
	touch $@

.venv/test: .venv/made pyproject.toml .ci/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable ".[test]"
	touch $@

.venv/llm: .venv/made pyproject.toml .ci/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable ".[llm]"
	touch $@

clean:
	rm -rf .venv results build *.egg-info
