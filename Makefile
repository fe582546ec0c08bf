# Each target sets itself up: the first use creates .venv, later ones reuse it until pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Apart from the rest: transformers imports torchao wherever it is installed, which costs every process two seconds.
QUANTISED := $(VENV)/quantised

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,postgres,plot]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --upgrade --target $(QUANTISED) torchao bitsandbytes
	touch $@

demo: $(STAMP) ## Watch an agent use what it was told in a process that has since ended
	$(BIN)/python -m examples.demo

test: $(STAMP) ## Run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal --ignore tests/backbone/adapter/test_quantised.py
	PYTHONPATH=$(QUANTISED) $(BIN)/python -m pytest tests/backbone/adapter/test_quantised.py

check: $(STAMP) ## Lint, formatting, types, import direction, public names
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/test_public_api.py

bench: $(STAMP) ## Measure speed, size and recall on this machine
	$(BIN)/deltamem bench
	$(BIN)/python -m examples.unattended

docs: $(STAMP) ## Build these pages and a reference of every public name into site/
	$(BIN)/zensical build --strict --clean

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist runs site .cache
