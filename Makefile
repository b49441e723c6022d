# The doors of the project. Each target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip
PYTEST := $(BIN)/python scripts/test_services.py -- $(BIN)/python -m pytest $(PYTEST_ARGS)
RUST_SOURCES := Cargo.toml Cargo.lock $(shell find core_rs -name '*.rs' -o -name 'Cargo.toml' -o -name 'build.rs')

.PHONY: help run test test-long bench lint format types imports rust-test python-test control-test other-test test-tools setup requirements clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

run: $(VENV)/.extension ## start the server with the simulated provider and a demo organization
	$(BIN)/comptroller serve --demo

test: setup lint types imports rust-test python-test ## everything CI runs, in under 15 minutes on two cores

test-long: export COMPTROLLER_TEST_FULL = 1
test-long: test ## the same tests at full size

bench: $(VENV)/.bench ## measure this machine; prints figures beside their floors and targets
	$(BIN)/python -m benchmarks

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

types: setup
	$(BIN)/mypy
	$(BIN)/stubtest core_rs._core --allowlist core_rs/stubtest-allowlist.txt

imports: setup
	$(BIN)/lint-imports

rust-test: setup
	cargo test --release --workspace
	cargo test --release -p comptroller-engine --features shuttle --test limits interleaving
	cargo test --release -p comptroller-engine --features planted --test simulation planted

# Two halves beside each other, each with stores of its own: one alone leaves a core idle.
python-test: setup test-tools
	$(MAKE) -j2 --output-sync=target control-test other-test

control-test:
	$(PYTEST) tests/controlplane tests/core_rs tests/properties

other-test:
	$(PYTEST) tests --ignore tests/controlplane --ignore tests/core_rs --ignore tests/properties

# Node for the client's tests, Chromium for the browser's.
test-tools: $(VENV)/.uv
	$(BIN)/python scripts/test_tools.py

setup: $(VENV)/.extension

format: setup ## rewrite the code in house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

requirements: $(VENV)/.uv ## pin what pyproject.toml asks for, with hashes
	$(UV) compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o requirements/runtime.txt
	$(UV) compile -q --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -c requirements/runtime.txt -o requirements/dev.txt
	$(UV) compile -q --universal --python-version 3.11 --generate-hashes --no-header --group bench pyproject.toml -c requirements/dev.txt -o requirements/bench.txt

clean: ## remove what was built
	rm -rf $(VENV) target dist

$(VENV)/.uv: requirements/uv.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/.python: $(VENV)/.uv requirements/dev.txt
	$(UV) install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

# Editable: Python sources are used in place, the extension is built beside them.
$(VENV)/.extension: $(VENV)/.python pyproject.toml $(RUST_SOURCES)
	$(BIN)/maturin develop --release --quiet --skip-install
	$(UV) install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.bench: $(VENV)/.extension requirements/bench.txt
	$(UV) install -q --python $(BIN)/python --require-hashes -r requirements/bench.txt
	@touch $@
