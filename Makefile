# make demo | release | code | test | integration | slow | faults | docs | lint | types | reproduce | clean. Everything runs in an environment
# of its own, in $(VENV).
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= demo
BIN = $(VENV)/bin
# Tests at a time, of one thread each.
JOBS ?= 2
# Threads that wait by spinning cost a busy machine more than they compute.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo release code test integration slow faults docs lint types reproduce clean

$(VENV)/.installed: setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps hearvalidator==2021.0.2  # it asks for TensorFlow, and a test needs none
	touch $@

demo: $(VENV)/.installed  ## synthesize, pre-train, export, load, measure
	$(BIN)/python training/demo.py --output_dir $(OUTPUT) $(DEMO_ARGUMENTS)

release: $(VENV)/.installed  ## NAME=audiopg-tiny DATA="ESC-10 ...": pre-train, export, probe, into checkpoints/NAME; goes on where it was stopped
	@test -n "$(NAME)" || { echo 'make release NAME=audiopg-tiny [DATA="FOLDER ..."] [RELEASE_ARGUMENTS=...]' >&2; exit 2; }
	$(BIN)/python training/release.py $(NAME) $(if $(DATA),--data_dir $(DATA)) $(RELEASE_ARGUMENTS)

code:  ## the copies of modeling/ that lie in checkpoints/*/, as Hub folders have them
	for file in checkpoints/*/*.py; do cp modeling/$$(basename $$file) $$file; done

test: $(VENV)/.installed  ## the default test suite, offline
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

$(VENV)/.integration: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[integration]'
	if command -v npm > /dev/null; then npm ci --silent --no-audit --no-fund --prefix space/browser; fi
	touch $@

integration: $(VENV)/.integration  ## the tests that run other people's programs: Ray, benchmark kits, Gradio, a browser
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m integration -n $(JOBS) --dist loadfile

slow: $(VENV)/.installed  ## the tests that take minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m slow

faults: $(VENV)/.installed  ## kills, full disks, damaged files, two commands at once: a table of what held; half an hour
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py $(FAULTS_ARGUMENTS)

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/.docs  ## the documentation as a site, in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.installed  ## style
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .

# Type check of a plain install, since checkers cannot follow an editable one; from elsewhere, since they would take the folder
# datasets/ for the library.
types: $(VENV)/.installed  ## type check
	rm -rf $(VENV)/types && $(BIN)/python -m pip install --quiet --no-deps --target $(VENV)/types . && rm -rf build
	cd $(VENV) && MYPYPATH=types $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml

reproduce: $(VENV)/.installed  ## every published row, with its command and what it costs
	$(BIN)/python training/pretrain.py --list

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
