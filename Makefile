# Every target sets itself up in .venv; only Python 3.11 or later and pip are needed (uv is used where present).
.PHONY: demo test check bench setup clean
.DEFAULT_GOAL := test
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.walras-ready

setup: $(STAMP)

# Set-up runs once, and again whenever the dependencies, the tool settings or the set-up itself change.
$(STAMP): pyproject.toml .ci/setup
	@.ci/setup $(VENV)
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/walras demo

test: $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	@set -e; for file in $(wildcard benchmarks/*.py); do echo "== $$file"; $(BIN)/python "$$file"; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build
