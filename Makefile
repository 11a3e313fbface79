# Every target sets itself up in .venv; only Python 3.11 or later and pip are needed (uv is used where present).
.PHONY: demo test test-all check bench setup clean
.DEFAULT_GOAL := test
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.walras-ready
BENCH_STAMP := $(VENV)/.walras-bench-ready

setup: $(STAMP)

# Set-up runs once, and again whenever the dependencies, the tool settings or the set-up itself change.
$(STAMP): pyproject.toml .ci/setup
	@.ci/setup $(VENV)
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/walras demo

# A file of tests stays in one process; more than four processes would want too much memory.
PYTEST := OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile --durations=30

test: $(STAMP)
	$(PYTEST)

# Studies, benchmarks and examples from end to end.
test-slow: $(STAMP)
	$(PYTEST) -m slow

test-all: test-slow test

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/house.py --check
	$(BIN)/vulture

# The packages to compare with are only wanted here; without them their rows say so.
$(BENCH_STAMP): $(STAMP)
	@.ci/setup $(VENV) test,dev,bench && touch $@ || echo "the packages to compare with were not installed"

bench: $(BENCH_STAMP)
	$(BIN)/python benchmarks/simulator.py --out benchmarks/results/simulator.json
	$(BIN)/python benchmarks/shadow_prices.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
