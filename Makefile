# `make train` and `make test` need only Python >= 3.11 and make; each sets up .venv on its first run.
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: train test lint setup clean help

help:
	@echo "make train   train the embedded tiny model with DRPO on this machine (ARGS='--lam 0.2' adds flags)"
	@echo "make test    run the test suite"
	@echo "make lint    ruff"
	@echo "make clean   remove .venv (runs/ stays)"

train: setup
	$(BIN)/python train.py $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

lint: setup
	$(BIN)/ruff check .

setup: $(READY)

# torch first and by itself, at the version pyproject.toml pins: nothing after it can pull in a second one.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {v}; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV)
