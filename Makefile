# A fresh machine needs Python 3.11, 3.12 or 3.13 with venv (Debian's python3-venv), and GNU make. Everything comes as
# wheels: no compiler.
# The first of these that runs and fits is taken. PYTHON=python3.14 names another one.
PYTHONS = python3 python3.13 python3.12 python3.11
PYTHON ?=
VENV ?= .venv
INFRA_VENV ?= .venv-infra
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip
INSTALL = $(PIP) install --quiet --disable-pip-version-check --constraint constraints.txt
SET ?= evaluation-set
SEED ?= 1
# One worker for each core, each with files of its own: a test that runs Ray takes two cores, and more workers were slower.
# In the order of the folders, the few slow tests of faults and pipelines start first: the short ones fill the end.
SIDE_BY_SIDE ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
SHELL := bash
# Without compiled files each process of a run, and each of the tests, would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env test-env browser demo test unit fuzz real-files chaos hosts extract-chaos writers year mutations lint format evaluation-set evaluate clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

env: $(VENV)/.ready ## create the environment in .venv with what a run needs

test-env: $(VENV)/.ready-for-tests ## add what the tests need to the same environment

# A name may be on the path and not run (pyenv's shims) or have no venv (Debian without python3-venv): each one is tried.
IS_FIT = import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(if $(PYTHON),14,13)))
define find_python
python=; for name in $(or $(PYTHON),$(PYTHONS)); do \
  if "$$name" -c '$(IS_FIT)' 2>/dev/null; then python=$$name; break; fi; \
done; \
if [ -z "$$python" ]; then \
  echo "Python 3.11, 3.12 or 3.13 with venv is needed; tried: $(or $(PYTHON),$(PYTHONS))." \
    "Install one of them (on Debian and Ubuntu also python3-venv), or set PYTHON=its path" >&2; \
  exit 1; \
fi
endef

# An environment that is there stays, unless PYTHON names another Python, its own does not fit, or it was left half-made.
BUILD = import sys; print(sys.version)
ifneq ($(PYTHON),)
ifneq ($(shell "$(PYTHON)" -c '$(BUILD)' 2>/dev/null),$(shell $(BIN)/python -c '$(BUILD)' 2>/dev/null))
IS_OTHER = yes
$(VENV)/.ready: other-python
endif
endif
.PHONY: other-python
other-python:
STAYS = [ -z "$(IS_OTHER)" ] && $(PIP) --version >/dev/null 2>&1 \
  && $(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

# kenlm and ufal-kenlm bring the same file, so that removing the older one alone would break the other.
$(VENV)/.ready: pyproject.toml constraints.txt
	@started=$$SECONDS; \
	if ! { $(STAYS); }; then \
	  $(find_python); echo "$(VENV): $$("$$python" --version), $$(command -v "$$python")"; "$$python" -m venv --clear $(VENV) || exit 1; \
	fi; \
	if $(PIP) show kenlm >/dev/null 2>&1; then $(PIP) uninstall --yes --quiet --quiet kenlm ufal-kenlm || exit 1; fi; \
	$(INSTALL) --editable . \
	  && touch $@ && echo "environment for runs: ready after $$((SECONDS - started)) s, $$(du -sm $(VENV) | cut -f1) MB"

$(VENV)/.ready-for-tests: $(VENV)/.ready
	@started=$$SECONDS; $(INSTALL) --editable '.[s3,test]' \
	  && touch $@ && echo "environment for tests: ready after $$((SECONDS - started)) s more, $$(du -sm $(VENV) | cut -f1) MB"

# Without Chromium the tests that open pages in a real browser are skipped.
browser: ## install Chromium for the tests of pages (Debian, as root), or say how
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-liberation; } >/dev/null 2>&1 \
	    && echo "Chromium is installed" || echo "Chromium could not be installed by apt-get: the tests of pages are skipped"; \
	else echo "no Chromium: the tests of pages are skipped; to run them, as root: apt-get install chromium chromium-driver"; fi

demo: env ## install what a run needs, transcribe the embedded demo archive and show the result
	@rm -rf demo-lake; started=$$SECONDS; $(BIN)/dictalake demo --lake.uri demo-lake && echo "demo took $$((SECONDS - started)) s"

test: test-env browser ## check style and types, run all tests
	@$(MAKE) --no-print-directory lint
	@started=$$SECONDS; $(BIN)/python -m pytest $(SIDE_BY_SIDE) && echo "tests took $$((SECONDS - started)) s"

unit: test-env ## run the tests that need no Ray
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/unit

fuzz: test-env ## load N mutated files of each kind (N=100000 SEED=1)
	@$(BIN)/python -m tests.fuzz --count $(or $(N),100000) --seed $(SEED) --keep fuzz-findings

chaos: test-env ## kill runs, workers, actors, runners and nodes N times at random moments and count what is lost (N=210 SEED=1)
	@$(BIN)/python -m tests.chaos --kills $(or $(N),210) --seed $(SEED) --store all --out chaos.json

# As root. Where the machine does not let it make network namespaces, it says so and ends well.
hosts: test-env ## run on three hosts in network namespaces, kill one, cut links, and count what is lost
	@$(BIN)/python -m tests.hosts --out infra/benchmarks/hosts.json

real-files: env ## compare what is read of other projects' audio files with ffprobe (needs ffmpeg and npm)
	@$(BIN)/python -m jobs.check_real_files --out infra/benchmarks/real-files

extract-chaos: test-env ## kill extractions N times, run two at once, and count what is in the lake (N=10 SEED=1)
	@$(BIN)/python -m tests.extract_chaos --kills $(or $(N),10) --seed $(SEED) --out infra/benchmarks/extract_chaos.json

writers: test-env ## write to one lake from sixteen processes, N times on each kind of storage (N=100)
	@$(BIN)/python -m tests.writers --rounds $(or $(N),100)

year: test-env ## hold the views of a lake against a model, night after night (NIGHTS=365 SEED=1)
	@$(BIN)/python -m tests.truth_machine --nights $(or $(NIGHTS),365) --seed $(SEED)

mutations: test-env ## take each guard of the lake out, and see that a test fails
	@$(BIN)/python -m tests.mutations --out infra/benchmarks/mutations.json

lint: test-env lint-infra ## check style and types, and infra/
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

.PHONY: lint-infra
lint-infra: $(INFRA_VENV)/.ready ## check infra/: schemas, Terraform's references, hadolint, checkov (no Docker, no cluster, no network)
	@$(INFRA_VENV)/bin/python infra/lint.py

# checkov's dependencies conflict with ours, so it has an environment of its own.
$(INFRA_VENV)/.ready: infra/requirements-lint.txt
	@started=$$SECONDS; if $(STAYS); then python=$(BIN)/python; else $(find_python); fi; "$$python" -m venv --clear $(INFRA_VENV) \
	  && $(INFRA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
	  && touch $@ && echo "environment of lint-infra ready after $$((SECONDS - started)) s"

format: test-env ## format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

evaluation-set: env ## speak the held-out and the hand-written texts (needs flite, espeak-ng and festival)
	@$(INSTALL) --editable '.[synthesis,whisper]'
	@PATH="$(abspath $(BIN)):$$PATH" infra/evaluation_set.sh $(SET)

evaluate: evaluation-set ## score greedy decoding, the language model and Whisper tiny.en on that set
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/held-out/manifest.csv --by voice
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/unseen-voices/manifest.csv --by voice
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/hand-written/manifest.csv --by voice --systems greedy,lm,whisper
	@$(BIN)/dictalake evaluate --archive.manifest $(SET)/hand-written-unseen/manifest.csv --by voice --systems greedy,lm,whisper

clean: ## remove the environments, the demo's lake and all caches
	rm -rf $(VENV) $(INFRA_VENV) demo-lake evaluation-set .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
