# Every target sets up .venv by itself; a second call does not install again.
PY := .venv/bin/python

.PHONY: help demo test lint format setup gpu-check clean
help:           ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 18

setup:          ## the virtual environment with everything that tests and the demo need
	@tools/setup.sh dev

demo:           ## set up, convert handwritten digits, train CLIM on them, evaluate, leave pictures and a checkpoint
	@tools/setup.sh demo
	@PATH="$(CURDIR)/.venv/bin:$$PATH" tools/demo.sh

test: setup     ## set up and run the whole suite
	@$(PY) -m pytest tests

lint: setup     ## ruff (rules and format) and mypy --strict
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

format: setup   ## rewrite the sources in the project's format
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

gpu-check: setup ## for a machine with a GPU: the tests that only it can run
	@$(PY) -m pytest tests -m cuda

clean:          ## remove the environment (data and runs stay)
	@rm -rf .venv
