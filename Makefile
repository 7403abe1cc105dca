# Each target bootstraps .venv when needed, from nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which benchmark `make bench` runs; empty for all.
BENCH ?=
# How many processes `make test` has; many tests wait for a cluster most of the time.
TEST_PROCESSES ?= 2
# Whether `make bench-smoke` makes today's counts the ones to be held to.
ACCEPT ?=

.PHONY: demo test lint bench bench-smoke clean .venv

# Stamps, so that a changed pyproject.toml installs again and an unchanged one costs nothing.
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed

demo: $(RUNTIME)
	$(BIN)/python examples/demo.py

test: $(DEV)
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(DEV)
	$(BIN)/python -m benchmarks $(BENCH)

bench-smoke: $(DEV)
	$(BIN)/python -m benchmarks.smoke $(if $(ACCEPT),accept)

.venv: $(DEV)

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "geosweep needs Python 3.11 or newer; say which: make PYTHON=python3.12 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# deepforest is here for the imagery in its wheel; it is never imported, so it needs no dependencies.
$(RUNTIME): pyproject.toml | $(BIN)/python
	@echo "installing geosweep into $(VENV): some minutes, 6 GB with torch"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps deepforest==2.1.0
	touch $@

$(DEV): pyproject.toml | $(BIN)/python
	@echo "installing geosweep and its development tools into $(VENV): some minutes, 6 GB with torch"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(RUNTIME)
