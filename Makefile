# Everything a fresh machine needs: Python 3.11 or 3.12, a C++ compiler (kenlm is compiled), GNU make.
PYTHON ?= python3
VENV ?= .venv
INFRA_VENV ?= .venv-infra
BIN := $(VENV)/bin
SET ?= evaluation-set
SEED ?= 1
SHELL := bash

.DEFAULT_GOAL := help
.PHONY: help env browser demo test unit fuzz chaos writers lint format evaluation-set evaluate clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

env: $(VENV)/.ready ## create the environment in .venv

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"Python 3.11 or 3.12 is needed, {sys.version.split()[0]} found; set PYTHON=python3.11")'
	@started=$$SECONDS; $(PYTHON) -m venv $(VENV) \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[s3,test]' \
	  && touch $@ && echo "environment ready after $$((SECONDS - started)) s"

# Tests that open pages in a real Chromium are skipped where there is none.
browser: ## install Chromium for the tests of pages (Debian, as root), or say how
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation; } >/dev/null 2>&1 \
	    && echo "Chromium is installed" || echo "Chromium could not be installed by apt-get: the tests of pages are skipped"; \
	else echo "no Chromium: the tests of pages are skipped; as root: apt-get install chromium chromium-driver"; fi

demo: env ## transcribe the embedded demo archive with the embedded model and show the result
	@rm -rf demo-lake; started=$$SECONDS; $(BIN)/dictalake demo --lake.uri demo-lake && echo "demo took $$((SECONDS - started)) s"

test: env browser ## check style and types, run all tests
	@started=$$SECONDS; $(MAKE) --no-print-directory lint && $(BIN)/python -m pytest && echo "tests took $$((SECONDS - started)) s"

unit: env ## run the tests that need no Ray
	@$(BIN)/python -m pytest tests/unit

fuzz: env ## load N mutated files of every kind (N=100000 SEED=1)
	@$(BIN)/python -m tests.fuzz --count $(or $(N),100000) --seed $(SEED) --keep fuzz-findings

chaos: env ## kill N real runs, workers, actors and nodes at random moments, and count what is lost (N=210 SEED=1)
	@$(BIN)/python -m tests.chaos --kills $(or $(N),210) --seed $(SEED) --store all --out chaos.json

writers: env ## sixteen processes on one lake, N times on each kind of storage (N=100)
	@$(BIN)/python -m tests.writers --rounds $(or $(N),100)

lint: env lint-infra ## check style and types, and infra/
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.PHONY: lint-infra
lint-infra: $(INFRA_VENV)/.ready ## check infra/: schemas, Terraform's references, hadolint, checkov (no Docker, no cluster, no network)
	@$(INFRA_VENV)/bin/python infra/lint.py

# checkov's dependencies meet ours: an environment of its own.
$(INFRA_VENV)/.ready: infra/requirements-lint.txt
	@started=$$SECONDS; $(PYTHON) -m venv --clear $(INFRA_VENV) \
	  && $(INFRA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
	  && touch $@ && echo "environment of lint-infra ready after $$((SECONDS - started)) s"

format: env ## put the code into shape
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

evaluation-set: env ## speak the held-out and the hand-written texts (needs flite, espeak-ng, festival; see README)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[synthesis,whisper]'
	@PATH="$(abspath $(BIN)):$$PATH" infra/evaluation_set.sh $(SET)

evaluate: evaluation-set ## score greedy, language model and Whisper tiny.en on them
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/held-out/manifest.csv --by voice
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/unseen-voices/manifest.csv --by voice
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/hand-written/manifest.csv --by voice --systems greedy,lm,whisper
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/hand-written-unseen/manifest.csv --by voice --systems greedy,lm,whisper

clean: ## remove the environment, the demo's lake and caches
	rm -rf $(VENV) $(INFRA_VENV) demo-lake evaluation-set .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
