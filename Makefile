# Everything a fresh clone needs. `make demo` and `make test` set themselves up.

.DEFAULT_GOAL := help
.PHONY: help demo run test check models peers viewers bench accuracy lock clean
.DELETE_ON_ERROR:
SHELL := /bin/bash

# The first Python that is new enough; `make PYTHON=/path/to/python3.12 demo` takes another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DICOM ?=
PYTEST ?=
# Where PyTorch comes from; without a GPU: make models TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# Volumes with ground truth for `make accuracy`, as MedSAM2 publishes them (imgs, gts, spacing).
ACCURACY_DATA ?= ../shared/data/gt/medsam2
WEIGHTS ?=
# Folder dist of @ohif/app for `make viewers`; fetched from npm where it is not given.
OHIF ?=
# Test modules at a time; each keeps its servers to itself.
JOBS ?= 2

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.core ## The whole main job once, on a built-in chest phantom (your own data: make demo DICOM=folder)
	@$(BIN)/voxgate demo $(if $(DICOM),"$(DICOM)")

run: $(VENV)/.core ## Start the gateway (voxgate serve)
	@$(BIN)/voxgate serve

test: $(VENV)/.dev ## All tests; installs DCMTK, Orthanc and PostgreSQL as peers where it may
	@bash .ci/peers --if-possible
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST)

check: $(VENV)/.dev ## Format, lint, types, layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

models: $(VENV)/.core ## Add PyTorch and transformers for the engines that need them
	$(PIP) install -c constraints.txt -r requirements/models.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

peers: ## Install the foreign programs that the tests talk to (Debian, Ubuntu)
	@bash .ci/peers

viewers: $(VENV)/.dev ## Look at real results in OHIF, in a headless browser (OHIF=folder dist of @ohif/app; default: from npm)
	@bash .ci/viewers $(BIN)/python $(OHIF)

bench: $(VENV)/.dev ## Measure how long results take
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/turnaround.py
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/intake.py
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/jobs.py
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/idle.py
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/assembling.py
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/encoding.py

accuracy: ## Dice of MedSAM2 on labelled npz files: make accuracy WEIGHTS=MedSAM2_latest.pt [ACCURACY_DATA=folder]
	@test -f "$(WEIGHTS)" || { echo "Say where the weights are: make accuracy WEIGHTS=MedSAM2_latest.pt" >&2; exit 1; }
	@PYTHONPATH=.:tests $(BIN)/python tests/benchmarks/medsam2_accuracy.py "$(WEIGHTS)" "$(ACCURACY_DATA)"

lock: ## Pin all dependencies anew
	@test -x $(VENV)/lock/bin/uv || { $(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install -q uv; }
	$(VENV)/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
	  -c constraints.txt requirements/core.in -o requirements/core.lock
	$(VENV)/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
	  -c constraints.txt requirements/dev.in -o requirements/dev.lock

clean: ## Remove the virtual environment and what the demo left
	rm -rf $(VENV) voxgate-demo

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
	  echo "Voxgate needs Python 3.11 or newer; none was found. Install it, or: make PYTHON=/path/to/python3.11 demo" >&2; \
	  exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11. Try: make PYTHON=/path/to/python3.11 demo" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

$(VENV)/.core: requirements/core.lock pyproject.toml | $(BIN)/python
	@echo "Installing Voxgate into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/core.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "Installing Voxgate and its development tools into $(VENV) …"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.core
