# make demo   install into .venv and train on real handwritten digits
# make test   install and run lint, types and the default tests; make test-slow runs the long ones
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread a process: small operations on many threads of a busy machine are slower, and bits depend on the number.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test test-slow lint types clean

demo: $(VENV)/core
	$(BIN)/zhixing train mnist --encoder cnn --epochs 4

test: $(VENV)/test lint types
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/test
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow --timeout 1800
	$(ONE_THREAD) HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest -n 2 --dist worksteal -m "hypothesis and not slow"

lint: $(VENV)/test
	$(BIN)/ruff check src tests benchmarks scripts examples
	$(BIN)/ruff format --check src tests benchmarks scripts examples

types: $(VENV)/test
	$(BIN)/mypy

$(VENV)/core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/test: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[test]"
	touch $@ $(VENV)/core

clean:
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
