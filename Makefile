# make demo    install, then train the demo study across four hospitals and write its report
# make test    install what the tests need, then run the fast ones
PYTHON ?= python3
VENV ?= .venv
OVERRIDES ?=
# Tests run at a time, whole files each, on two cores: most wait for other processes. Each needs up to 4 GB.
WORKERS ?= 4

BIN := $(VENV)/bin
START := $(shell date +%s)
# Whole files, or classes, in the order that tests/conftest.py gives them; the slowest tests are named at the end.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder --durations=20
# pip compiles one file after the other; COMPILE does it on all cores. Some packages hold templates that are no Python.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
COMPILE = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

.PHONY: help demo test attacks fuzz published test-slow test-long test-all test-transformers test-launchers ci lint clean

help:
	@echo "make demo        install, train the demo study over Flower, write its report (OVERRIDES=... is passed on)"
	@echo "make test        install, run the fast tests"
	@echo "make fuzz        install, give 100,000 hostile cases to each reader of messages and files: hours"
	@echo "make published   install, run the published study with all its strategies and seeds, and the studies of the pages"
	@echo "make attacks     install, try whether weights tell who or what was trained on (FLIP_DATA_DIR: the data): minutes"
	@echo "make test-slow   install, run the tests that need minutes"
	@echo "make test-all    install, run both"
	@echo "make test-long   install, run what these leave out: before a release; half an hour"
	@echo "make test-transformers   install the extra package beside the others, run the tests that need it"
	@echo "make test-launchers      install Hydra's launchers and Optuna beside the others, sweep with them"
	@echo "make ci          lint, test-transformers, test-launchers and test-all"
	@echo "make lint        install, check style and types"
	@echo "make clean       remove the environment and the caches; runs and data stay"

demo: $(VENV)/.installed
	@installed=$$(date +%s) && \
	$(BIN)/python -m datamodules.phantom demo && \
	generated=$$(date +%s) && \
	$(BIN)/python -m flip experiment=sarcopenia federation=flower $(OVERRIDES) && \
	echo "make demo: install $$((installed - $(START))) s, demo cohort $$((generated - installed)) s," \
	  "training and report $$(($$(date +%s) - generated)) s"

test: $(VENV)/.installed-test
	$(PYTEST)

fuzz: $(VENV)/.installed-test $(VENV)/.installed-atheris
	for reader in task reply query; do \
	  PYTHONPATH=$(abspath $(VENV))/atheris $(BIN)/python -m tests.fuzz.guided $$reader 100000 || exit 1; done
	$(BIN)/python -m pytest -n $(WORKERS) --hypothesis-profile=fuzz --timeout=0 tests/fuzz

attacks: $(VENV)/.installed-test
	$(BIN)/python -m tests.benchmarks.attack_membership 64 none "dp_sgd 8" "dp_sgd 3" "dp_sgd 1"
	$(BIN)/python -m tests.benchmarks.attack_row 20
	$(BIN)/python -m tests.benchmarks.attack_image 6

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m "slow and not long"

# What other tests show too, live or at a smaller size, and what takes longest of the pages' figures.
test-long: $(VENV)/.installed-test
	$(PYTEST) -m long

# In one session: what a file starts for its fast tests serves its slow ones too.
test-all: $(VENV)/.installed-test
	$(PYTEST) -m "not long"

# What an article published and our pages state, also what the tests above leave out: needs the real data.
published: $(VENV)/.installed-test
	$(BIN)/python -m pytest -s -m "slow or long" tests/conf/test_published.py tests/conf/test_real_studies.py \
	  tests/conf/test_sarcopenia_demo.py

# In a folder of its own: where transformers is installed every process starts 1.7 s later, since torchmetrics imports it.
test-transformers: $(VENV)/.installed-transformers
	PYTHONPATH=$(abspath $(VENV))/transformers $(BIN)/python -m pytest tests/datamodules/test_transformer.py tests/models/test_adapters.py

# Likewise: what Hydra finds of them it loads in every sweep.
test-launchers: $(VENV)/.installed-launchers
	PYTHONPATH=$(abspath $(VENV))/launchers $(BIN)/python -m pytest -m slow tests/cli/test_launchers.py

ci:
	$(MAKE) lint
	$(MAKE) test-transformers
	$(MAKE) test-launchers
	$(MAKE) test-all

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# An install is done once, and again when what it depends on changes; the code itself is installed editable.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --no-compile -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --no-compile -e '.[test]'
	@$(COMPILE)
	@touch $@

$(VENV)/.installed-transformers: $(VENV)/.installed-test
	$(INSTALL) --upgrade --target $(VENV)/transformers transformers
	$(INSTALL) --upgrade --no-deps --target $(VENV)/transformers peft accelerate
	@touch $@

$(VENV)/.installed-launchers: $(VENV)/.installed-test
	$(INSTALL) --upgrade --target $(VENV)/launchers hydra-joblib-launcher hydra-submitit-launcher hydra-optuna-sweeper
	@touch $@

$(VENV)/.installed-atheris: $(VENV)/.installed-test
	$(INSTALL) --upgrade --target $(VENV)/atheris atheris
	@touch $@

# All of the above at once: pip looks up what every package needs once.
$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --no-compile -e '.[dev]'
	@$(COMPILE)
	@touch $(VENV)/.installed $(VENV)/.installed-test $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "FLIP needs Python 3.11 or newer; '$(PYTHON)' is not. Name one: make demo PYTHON=python3.11" >&2; exit 1; }
	@echo "Making $(VENV) and installing into it: minutes, and 2 GB or more"
	$(PYTHON) -m venv --clear $(VENV)

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
