# Two commands from clone to result: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2

.PHONY: demo test test-all test-slow lowest lint types check bench constraints results clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say  make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || echo "no uv to be had: installing with pip"
	if [ -x $(BIN)/uv ]; then $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev]'; \
	else $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'; fi
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/pseudolabel demo demo-run

# the ratios of speed last and alone: beside other tests they say little
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and (core or not (slurm or ray))" \
	--ignore tests/test_ratios.py
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_ratios.py

# also what takes long: whole trainings, and a real Slurm and Ray that the tests start on this machine
test-all: $(STAMP)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[dev,ray]' || \
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# one of seven parts of what takes long and needs no scheduler, by file; what is not through in time is said, not failed
PART ?= 0
SLOW_MINUTES ?= 6
test-slow: $(STAMP)
	@files=$$(grep -rlE 'mark\.slow' tests --include='test_*.py' --include=conftest.py | grep -v engines/ \
	| sed 's#/conftest.py##' | sort | awk 'NR % 7 == $(PART)'); \
	echo "slow suite, part $(PART) of 0 to 6:" $$files; \
	OMP_NUM_THREADS=1 timeout -s INT $(SLOW_MINUTES)m $(BIN)/python -m pytest -n $(WORKERS) -m "slow and not (slurm or ray)" $$files; \
	code=$$?; case $$code in 0|5) ;; \
	124) echo "slow suite, part $(PART): not through after $(SLOW_MINUTES) minutes; make test-slow PART=$(PART) SLOW_MINUTES=60 is" ;; \
	*) exit $$code ;; esac

# the same tests at the lower bounds of pyproject.toml: with the oldest versions that it allows
LOWEST := .venv-lowest
LOWEST_TESTS ?= tests/fusion tests/formats tests/metrics tests/stages tests/segmenters tests/training tests/cli/test_extras.py \
	tests/test_rle.py tests/test_images.py tests/test_config.py tests/test_masks.py
lowest: $(STAMP)
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[dev]'
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not (slurm or ray)" $(LOWEST_TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

# all speeds with their goals, what they were and what they are; needs the real data beside the checkout
bench: $(STAMP)
	$(BIN)/python tests/benchmarks/bench.py

# exact versions of what is installed now, names and numbers alone
constraints: $(STAMP)
	$(BIN)/python -m pip list --format=freeze --exclude-editable | grep -viE '^(pip|setuptools|uv|wheel)==' > constraints.txt

results: $(STAMP)
	$(BIN)/python docs/render_results.py

clean:
	rm -rf $(VENV) $(LOWEST) demo-run build *.egg-info
