# Everything lives in one virtual environment; a stamp file per set of extras says what is installed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_FLAGS ?= -n 2
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test test-torch smoke check lint types bench bench-peers clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

help:            ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.examples            ## train on real digits, show the compiled step, time it
	$(BIN)/python examples/digits.py

test: $(VENV)/.test            ## run all tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

smoke: $(VENV)/.test            ## run the smallest tests, in seconds
	$(BIN)/python -m pytest -q tests/test_tiny.py

test-torch: $(VENV)/.torch            ## run the tests of the PyTorch backend (installs PyTorch's CPU build)
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests/pytorch tests/gpu/test_interop.py tests/gpu/test_torch_on_cuda.py

check: lint types test            ## style, types and all tests

lint: $(VENV)/.dev            ## ruff
	$(BIN)/python -m ruff check .

types: $(VENV)/.dev            ## mypy
	$(BIN)/python -m mypy

bench: $(VENV)/.base            ## time the workloads against peers (see benchmarks/README.md)
	$(BIN)/python benchmarks/run.py $(BENCH_FLAGS)

bench-peers:            ## create environments with JAX and PyTorch for make bench
	for peer in jax torch; do \
	  $(PYTHON) -m venv .venv-bench/$$peer && \
	  .venv-bench/$$peer/bin/python -m pip install --quiet --upgrade numpy $$peer || exit 1; \
	done

clean:            ## remove the environments and all caches
	rm -rf $(VENV) .venv-torch build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tilewright needs Python 3.10 or newer, this is " + sys.version.split()[0])'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	@echo "installing tilewright into $(VENV)"
	@$(INSTALL) --editable .
	@touch $@

# PyTorch's CPU build where its index is reached, else the one that is installed or found for this version.
TORCH ?= torch==2.13.0
$(VENV)/.torch: pyproject.toml | $(VENV)/bin/python
	@echo "installing PyTorch and tilewright[test-torch] into $(VENV)"
	@$(INSTALL) '$(TORCH)'
	@$(INSTALL) --editable '.[test-torch]'
	@touch $@

$(VENV)/.examples $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	@echo "installing tilewright[$*] into $(VENV)"
	@$(INSTALL) --editable '.[$*]'
	@touch $@
