# make help lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
INSTALLED := .venv/.installed
TEST_INSTALLED := .venv/.installed-test
export PYTHONDONTWRITEBYTECODE :=  # set in many images; without bytecode every process compiles all that it imports

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## .venv with everything that a run needs

demo: $(INSTALLED)  ## a chatting language model from raw pages, in minutes on a laptop (recipe tiny)
	@$(BIN)/groundup run --recipe tiny --name demo

up: $(INSTALLED)  ## the Prefect server, its deployments and a worker
	@$(BIN)/groundup up

down:  ## stop what up started
	@$(BIN)/groundup down

check: $(TEST_INSTALLED)  ## lint, types, import rules, contracts, fast tests: about a minute on 2 cores
	@$(MAKE) --no-print-directory -j 2 lint fast

lint: $(TEST_INSTALLED)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python -m tests.import_rules > .venv/import-rules.log || { cat .venv/import-rules.log; exit 1; }
	@$(BIN)/groundup contracts check > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }

fast: $(TEST_INSTALLED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not long" -n logical --maxprocesses 8

test: $(TEST_INSTALLED)  ## everything, the slow real tests too: about 20 minutes on 2 cores
	@infra/install_test_programs.sh
	@$(MAKE) --no-print-directory check
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not long" -n 2 --dist loadgroup

test-long: $(TEST_INSTALLED)  ## fuzzing: what strangers may write, ten minutes each (GROUNDUP_FUZZ_SECONDS=600)
	@GROUNDUP_FUZZ_SECONDS=$${GROUNDUP_FUZZ_SECONDS:-600} OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --timeout 3600 -n logical --dist worksteal tests

bench: $(TEST_INSTALLED)  ## our speed beside our peers', in the same run
	@$(BIN)/python -m tests.bench

reference:  ## docs/reference, written anew from the docstrings
	@python3 infra/reference.py

check-gpu:  ## a GPU: speed beside transformers, bits, losses, memory; under 8 minutes (ARGS="--small --only sft")
	@if [ -x $(BIN)/python ]; then exec $(BIN)/python -m tests.gpu.check $(ARGS); fi; \
	[ ! -d gpu-wheels ] || [ -d gpu-wheels/site ] || infra/gpu_wheels.sh --unpack && \
	PYTHONPATH="$$PWD:$$PWD/gpu-wheels/site$${PYTHONPATH:+:$$PYTHONPATH}" exec python3 -m tests.gpu.check $(ARGS)

gpu-wheels:  ## what check-gpu needs beside a usual PyTorch image, to carry to a machine without a network
	@infra/gpu_wheels.sh

$(INSTALLED): pyproject.toml constraints.txt infra/install.sh
	@echo "setting up .venv …"
	@infra/install.sh
	@touch $@

$(TEST_INSTALLED): pyproject.toml constraints.txt infra/install.sh
	@echo "setting up .venv …"
	@infra/install.sh test
	@touch $(INSTALLED) $@

.PHONY: help setup demo up down check lint fast test test-long bench reference check-gpu gpu-wheels
