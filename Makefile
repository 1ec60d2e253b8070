VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: run test bench simulate chaos soak fuzz clean

$(VENV)/ready: requirements.lock pyproject.toml
	@echo "==> making $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: $(VENV)/ready
	$(BIN)/trimaran local

test: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(BIN)/python -m tests.chaos --install
	@$(BIN)/python -m tests.clients.npm
	$(BIN)/python -m pytest -m "not processes" --numprocesses 2 --dist worksteal
	$(BIN)/python -m pytest -m processes

bench: $(VENV)/ready
	$(BIN)/python -m benchmarks.local $(BENCH)

SEEDS ?= 0..999
simulate: $(VENV)/ready
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

CHAOS ?= --runs 14 --seconds 180
chaos: $(VENV)/ready
	$(BIN)/python -m tests.chaos --install
	$(BIN)/python -m tests.chaos $(CHAOS)

MINUTES ?= 10
soak: $(VENV)/ready
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES)

EXAMPLES ?= 100
fuzz: $(VENV)/ready
	FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/api/test_schemathesis.py

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis trimaran-data
