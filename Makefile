# Every target sets up .venv by itself; a second call does not install again.
PY := .venv/bin/python
CIFAR ?= cifar-10-python.tar.gz
METHODS ?= msvq,ressl,moco,byol,simclr,nnclr,mncl,simsiam,clim,cgh,iccl
MINUTES ?= 0
ARGS ?=
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-quick lint format setup reproduce-cifar10 gpu-check clean
help:              ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):[^#]*## */  make \1\t/' | expand -t 28

setup:             ## the virtual environment with everything that tests and the demo need
	@tools/setup.sh dev

demo:              ## set up, convert handwritten digits, train CLIM on them, evaluate, leave pictures and a checkpoint
	@tools/setup.sh demo
	@PATH="$(CURDIR)/.venv/bin:$$PATH" tools/demo.sh

test: setup        ## set up and run the whole suite
	@$(PY) -m pytest tests $(PARALLEL)

test-quick: setup  ## the tests for in between: no whole runs, no further processes
	@$(PY) -m pytest tests $(PARALLEL) --ignore tests/integration -m "not processes and not whole_run and not slow"

lint: setup        ## ruff (rules and format) and mypy --strict
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

format: setup      ## rewrite the sources in the project's format
	@$(PY) -m ruff check --fix . ; $(PY) -m ruff format .

reproduce-cifar10: setup ## the papers' CIFAR-10 table, measured as they did: CIFAR=its archive, MINUTES=of a lease; goes on; for a GPU
	@[ -e data/cifar10.beton.json ] || $(PY) -m tools.convert $(CIFAR) data/cifar10.beton
	@$(PY) -m tools.sweep --data data/cifar10.beton --val-data data/cifar10-test.beton --out runs/cifar10 \
		--methods $(METHODS) --published --minutes $(MINUTES) --set mncl:recipe=cifar10_224 \
		-- --recipe cifar10 --knn-every 10 $(ARGS)

gpu-check: setup   ## for a machine with a GPU: the tests that only it can run, and every benchmark, into tools/results/gpu.json
	@$(PY) -c 'import torch, sys; sys.exit(0 if torch.cuda.is_available() else "gpu-check: no CUDA device is found here")'
	@$(PY) -m pytest tests -m cuda
	@$(PY) -m tools.benchmark all --json tools/results/gpu.json

clean:             ## remove the environment (data and runs stay)
	@rm -rf .venv
