# Set-up and every routine job. Needs make and Python 3.11, 3.12 or 3.13; everything else goes into one venv.
#
#   make demo                                    reconstruct the shipped CT series
#   make test                                    the tests
#   make venv TORCH="torch==2.13.0" PIP_ARGS=... another torch build (say, for your CUDA version); PIP_ARGS goes to the
#                                                pip call that installs torch and nowhere else
#   make venv PYTHON=python3.12                  another interpreter

VENV ?= .venv
TORCH ?= torch==2.13.0
PIP_ARGS ?=
EXTRAS ?= dev,astra,odl,numba,diffusers,hub,dicom-compressed,parametric-map,deidentify,simpleitk,tune,tensorboard,benchmark,rings,monai,torchio,dicom-node,protein,tm-score,picture-sets,docs
OUT ?= demo-output
PYTEST_ARGS ?=
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

# The first interpreter that really starts and has a supported version.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo $$p && break; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := deft_ct operators datasets scripts benchmarks tests docs

# Warnings are errors, and every link within the site is followed. Tutorials are small: with one thread they do not wait for
# cores that other programs use.
SITE = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m sphinx -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html \
	&& $(BIN)/python docs/_extensions/check_links.py docs/_build/html

.DEFAULT_GOAL := help
.PHONY: help venv dev demo test test-all fuzz coverage figures docs docs-quick lint format types check clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

venv: $(VENV)/.runtime ## set up: deft-ct and what it needs to run

dev: $(VENV)/.dev ## set up for development: tests, linters and the optional back ends as well

# torch first and alone, so that the chosen build is the one that stays; the rest is then installed against exactly it.
$(VENV)/.runtime: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11, 3.12 or 3.13 found; install one or say make PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(PIP) install $(PIP_ARGS) "$(TORCH)"
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(PIP) list --format=freeze | grep '^torch==' >> $(VENV)/constraints.txt
	$(PIP) install -c $(VENV)/constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) install -c $(VENV)/constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

demo: venv ## reconstruct the shipped CT series from 60 simulated views: FBP, TV and DEFT
	$(BIN)/deft-ct demo --out $(OUT)

test: dev ## the tests, without the slow ones; one process for each core, at most 4
	$(BIN)/pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-all: dev ## all tests
	$(BIN)/pytest $(PYTEST_ARGS)

fuzz: dev ## 30 minutes of damaged input for every reader
	$(BIN)/python scripts/fuzz.py --minutes 30 --target all

coverage: dev ## the tests with branch coverage
	$(BIN)/pytest -m "not slow" $(PARALLEL) --cov --cov-report=term $(PYTEST_ARGS)

figures: dev ## write the figures of benchmarks/results into README and docs
	$(BIN)/pytest -q --write-figures tests/test_documented_*.py

docs: dev ## the site, with its tutorials run, in docs/_build/html
	$(SITE)

docs-quick: dev ## the site without running the tutorials
	DEFT_CT_RUN_TUTORIALS=0 $(SITE)

lint: dev ## ruff: rules and format
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: dev ## mypy --strict
	$(BIN)/mypy

check: lint types test ## everything that has to pass before a change lands

clean: ## remove build products and caches; the venv stays
	rm -rf docs/_build docs/generated docs/auto_tutorials docs/sg_execution_times.rst build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov
