# `make demo` and `make test` install what is missing, on a fresh Debian 12, as root or as a user with sudo.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# The checkout, or a readable copy of it (see the script).
HERE = $(shell share/scripts/readable.sh)
JUNIT = --junitxml=build/tests.xml

.PHONY: help demo test check bench wheel clean

help: ## Say what can be made
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/'

demo: ## Start a Hub with everything embedded on this machine, with sample accounts and data
	@here="$(HERE)" && cd "$$here" && share/scripts/install.sh demo && exec .venv/bin/visahub demo

test: ## Install what is missing and run all tests, real servers included
	@here="$(HERE)" && cd "$$here" && share/scripts/install.sh test && mkdir -p build && \
	  .venv/bin/python -m pytest -n 2 --dist loadfile -rs $(JUNIT) $(ARGS)

check: ## Lint, types and the tests that need no server
	@here="$(HERE)" && cd "$$here" && share/scripts/install.sh test && \
	  .venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy && \
	  .venv/bin/python -m pytest -n 2 -q -m "not services and not browser and not slow" $(ARGS)

bench: ## Print the table of figures, all or ONLY=name, and write build/bench.json
	@here="$(HERE)" && cd "$$here" && share/scripts/install.sh bench && \
	  .venv/bin/python -m benchmarks $(ONLY)

wheel: ## Build the wheel, with noVNC and htmx in it
	@share/scripts/install.sh test && rm -rf build/lib build/bdist.* && .venv/bin/python -m build --wheel --outdir dist .

clean: ## Remove what was installed and made here
	rm -rf .venv build dist share/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
