# Two commands from clone to result: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-all lint types check constraints results clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "no uv to be had: installing with pip"
	if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; fi
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/pseudolabel demo demo-run

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and (core or not (slurm or ray))"

# also what takes long: whole trainings, and a real Slurm and Ray that the tests start on this machine
test-all: $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev,ray]' || \
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# exact versions of what is installed now, names and numbers alone
constraints: $(STAMP)
	$(BIN)/python -m pip list --format=freeze --exclude-editable | grep -viE '^(pip|setuptools|uv|wheel)==' > constraints.txt

results: $(STAMP)
	$(BIN)/python docs/render_results.py

clean:
	rm -rf $(VENV) demo-run build *.egg-info
