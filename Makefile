# `make help` lists what there is. What needs `.venv/` makes it first, once: requirements/setup_venv.py says how.
SHELL := /bin/bash
PYTHON := .venv/bin/python
# Not `python -m pytest`, which puts the root on sys.path: `pipeline` and `components` would import under a second name.
PYTEST := .venv/bin/pytest
WORKERS ?= 2
# A file's tests stay on one worker, so that what its fixtures trained is trained once. In the folders' order: xdist's
# own puts the files with few tests last, which are the long ones, and leaves a worker alone with them.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-all lint format requirements clean distclean

help: ## Lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Makes .venv/ with everything in it; does nothing where that is up to date
	@requirements/setup.sh

demo: setup ## Trains on three months of flights, publishes, takes in the next month, publishes again
	@$(PYTHON) examples/flights/demo.py

test: lint ## Lint, types and all tests but the slow ones: what CI runs
	$(PYTEST) $(PARALLEL) -m "not slow"

test-fast: setup ## Lint and the tests that need no TensorFlow, in seconds
	.venv/bin/ruff check .
	$(PYTEST) $(PARALLEL) -m "not tensorflow and not slow"

test-all: lint ## Everything, the long scenarios too; before an issue is called resolved, on both stacks
	$(PYTEST) $(PARALLEL)

lint: setup ## Lint, format and types, nothing changed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: setup ## Formats the code and mends what lint can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

requirements: setup ## Remakes the pins of both stacks; UPGRADE=1 takes the newest of everything
	@$(PYTHON) -B requirements/compile_pins.py $(if $(UPGRADE),--upgrade)

clean: ## Removes what builds, checks and the demo leave behind: .evergreen/ with its versions too
	rm -rf .evergreen build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './.venv*/*' -prune -exec rm -rf {} +

distclean: clean ## Removes .venv/ too
	rm -rf .venv .venv-airflow .venv-airflow.lock
