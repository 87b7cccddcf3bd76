# `make repro` runs the pipeline, `make test` the tests; both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# DVC starts the stages with whatever `python` comes first on the path.
export PATH := $(abspath $(BIN)):$(PATH)

# Folds of the cross-validation at a time; each takes compute.threads processors.
JOBS ?= 2
FOLDS := fold@0 fold@1 fold@2 fold@3 fold@4

# What the page is built with; its tests need it too.
PACKAGES := web/node_modules/.package-lock.json
PORT ?= 8080

.PHONY: help repro folds $(FOLDS) test test-long test-team lint ui demo packages lock clean

help: ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "adpet needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(PACKAGES): web/package-lock.json
	cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

# Where there is no npm, whoever needs the packages says so.
packages:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory --silent $(PACKAGES); fi

repro: $(INSTALLED) ## run the pipeline as far as it has changed, and sum it up
	dvc repro
	@adpet summary

folds: $(INSTALLED) ## the same with JOBS=2 folds of the cross-validation at a time
	dvc repro train
	$(MAKE) --keep-going --jobs=$(JOBS) $(FOLDS)
	dvc repro
	@adpet summary

# What a fold is made from is there already: looking at it again would lock it, and the other folds out.
$(FOLDS): fold@%:
	dvc --wait-for-lock repro --single-item $@

test: $(INSTALLED) packages ## run the tests, but for the long ones
	python -m pytest -n 2 --no-loadscope-reorder

test-long: $(INSTALLED) packages ## kill and repeat trainings, and run whole pipelines
	python -m pytest -n 2 --no-loadscope-reorder -m long

test-team: $(INSTALLED) ## run the pipeline as two users on a team's servers
	python -m pytest -m team tests/test_team.py

lint: $(INSTALLED) packages ## check style, types and layers
	ruff check
	ruff format --check
	mypy
	lint-imports
	@if test -f $(PACKAGES); then cd web && npm run --silent check; \
	else echo "web/ is not checked: it needs Node.js with npm (Debian: apt-get install nodejs npm)"; fi

ui: $(INSTALLED) ## show the runs in the MLflow UI, on the address that it prints
	adpet ui

demo: ## build the page from results/export and serve it on loopback (needs Node.js)
	@command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)' || \
		{ echo "make demo: required Node.js 18 or newer with npm; received $$(node --version 2>/dev/null || echo none); install it (Debian: apt-get install nodejs npm)" >&2; exit 1; }
	@test -f results/export/model.json || \
		{ echo "results/export: required an exported model; received none; run \`make repro\`" >&2; exit 1; }
	@$(MAKE) --no-print-directory --silent $(PACKAGES)
	@cd web && npm run --silent build
	@$(PYTHON) scripts/demo.py --port $(PORT)

lock: ## resolve the requirements anew (needs uv)
	uv pip compile pyproject.toml --extra train --group dev --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-annotate --no-header --quiet --output-file requirements.lock

clean: ## remove the environment, the built page and every unfinished piece of work, but not what MLflow lacks
	rm -rf $(VENV) web/node_modules web/dist
	test ! -d .adpet || find .adpet -mindepth 1 -maxdepth 1 ! -name outbox ! -name refused -exec rm -rf {} +
