# Two commands: `make demo` shows the whole loop on real data, `make test` runs every test.
PYTHON ?= python3.11
BIN := .venv/bin
# The longest files first, which those of the simulation are: else one core waits for them at the end.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
ROUNDS ?= 1
# Many processes start here, each with thousands of modules: their bytecode is kept, also where the environment (as
# images of containers do) says that it is not to be.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help install dev demo test unit fuzz check format docs proto benchmark lock clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## Create .venv with everything that driftlog needs

dev: .venv/.dev ## The same with the test tools

demo: install ## The main job: the whole loop on a year of flights, a broker killed on the way
	$(BIN)/driftlog demo

test: unit ## All tests (unit, simulation, real Kafka, end to end)
	$(BIN)/python -m pytest --durations 15 tests/integration tests/e2e

unit: dev ## Only the tests that start no server
	$(BIN)/python -m pytest $(PARALLEL) tests/simulation tests/unit

fuzz: dev ## The property tests again, with new random examples each time (make fuzz ROUNDS=10)
	for round in $$(seq $(ROUNDS)); do \
	  $(BIN)/python -m pytest -q $(PARALLEL) -m hypothesis --hypothesis-profile search tests/simulation tests/unit || exit 1; \
	done

check: dev ## Lint, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: dev ## Write docs/events.md from the schemas
	$(BIN)/driftlog schemas docs

proto: dev ## Write the gRPC stubs from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. models/serving/grpc/*.proto

lock: .venv/bin/uv ## Pin the dependencies anew
	$(BIN)/uv pip compile -q --no-header --no-annotate --python-version 3.11 pyproject.toml -o requirements.txt --upgrade
	$(BIN)/uv pip compile -q --no-header --no-annotate --python-version 3.11 pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt

clean: ## Remove the virtual environment and caches (not the data under .driftlog)
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo "driftlog needs Python 3.11: $(PYTHON) is not on the PATH (make PYTHON=...)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check uv

.venv/.installed: requirements.txt pyproject.toml | .venv/bin/uv
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.installed
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements-dev.txt
	@touch $@
