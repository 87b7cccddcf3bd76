# `make repro` runs the pipeline, `make test` the tests; both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# DVC starts the stages with whatever `python` comes first on the path.
export PATH := $(abspath $(BIN)):$(PATH)

# What the page is built with; its tests need it too.
PACKAGES := web/node_modules/.package-lock.json
PORT ?= 8080

# Marks of the tests that `make test` leaves out.
EXTENDED := dvc or server or browser or node or slow

.PHONY: help versioned repro test test-extended test-all lint docs ui demo packages lock clean

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

# Without npm, the targets that need the packages say so.
packages:
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory --silent $(PACKAGES); fi

# Of a ZIP; DVC names the folder and says no more.
versioned:
	@test -e .git || { echo "adpet: this folder is no git repository, which DVC asks for; run: git init && git add . && git commit -m begin" >&2; exit 1; }

repro: versioned $(INSTALLED) ## run the pipeline as far as it has changed, and sum it up
	dvc repro
	@adpet summary

test: $(INSTALLED) ## run the fast tests: no server, browser, Node or DVC process
	python -m pytest -n 2 --durations=10 -m "not ($(EXTENDED))"

test-extended: $(INSTALLED) packages ## run the other tests
	python -m pytest -n 2 --durations=10 -m "$(EXTENDED)"

test-all: test test-extended ## run all tests: also DVC, kills, servers, PostgreSQL, Chromium, Node

lint: $(INSTALLED) packages ## check style, types and layers
	ruff check
	ruff format --check
	mypy
	lint-imports
	@if test -f $(PACKAGES); then cd web && npm run --silent check; \
	else echo "web/ is not checked: it needs Node.js with npm (Debian: apt-get install nodejs npm)"; fi

docs: $(INSTALLED) ## build the pages of docs/ into site/
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict
	@echo site/index.html

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

lock: ## resolve the requirements again (needs uv)
	uv pip compile pyproject.toml --extra train --extra cluster --group dev --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-annotate --no-header --quiet --output-file requirements.lock

clean: ## remove the environment, the built pages and all unfinished work
	rm -rf $(VENV) web/node_modules web/dist site .adpet
