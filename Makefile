# Everything from one word: `make demo`, `make test`, `make docs`, `make bench-audio`, `make bench-train`, `make bench-serve`. Each installs first, into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# measured; where there is no CUDA torch is a small part of it
SIZES := installing into $(VENV): 6.4 GB on disk on Linux, 5.3 of it torch and its CUDA libraries; nothing more is said until it is there
# errors are shown, a page of warnings about caches, users and new versions is not
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet install --root-user-action=ignore --constraint constraints.txt

.PHONY: demo test test-slow test-long bench-audio bench-train bench-serve install lint docs format proto constraints clean

demo: install
	$(BIN)/recsys demo

# All but the slow ones, a process a core; `make test T=tests/util/test_topk.py` runs one file or test, in one process.
T ?=
# Tests start hundreds of processes; where files may not be compiled, each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE
test: install
	$(BIN)/python -m pytest $(if $(T),$(T),--numprocesses auto --dist worksteal)

# Each file in one process: its tests share servers and fits. One thread in each: more would fight for the cores.
SLOW := OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(if $(T),$(T),--numprocesses auto --dist loadfile)
test-slow: install
	$(SLOW) -m slow

# What takes long and seldom finds anything: fifty kills, real data sets, every cell of what an ordinary run samples.
test-long: install
	$(SLOW) -m long

# What embedding sound costs beside decoding it; `make bench-audio ARGS=--quick` measures less.
bench-audio: install
	@$(PIP) --editable '.[build,bench]'
	$(BIN)/python -m benchmarks.audio $(ARGS)

# Factors, lists and neighbours beside implicit and exact search; `make bench-train ARGS=--quick` only shows that it runs.
bench-train: install
	$(BIN)/python -m benchmarks.train $(ARGS)

# Answers beside empty calls, from a store that is made up (18 GB on disk at full size; ARGS="--store DIR" keeps it), and uploads.
bench-serve: install
	$(BIN)/python -m benchmarks.serve $(ARGS)
	$(BIN)/python -m benchmarks.serve_uploads

install: $(VENV)/.installed

# The virtual environment is complete only once .installed is there; a broken attempt is made anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recsys needs Python 3.11 or later; found `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || \
		{ echo "recsys needs a C compiler to build lightfm-next; none was found. Try: apt-get install build-essential"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "$(SIZES)"
	@$(PIP) pip setuptools wheel
	@$(PIP) --editable '.[build,dev]'
	@$(BIN)/recsys weights musicnn || true  # without them a build trains from a random start, and says so
	@touch $@
	@echo "installed into $(VENV)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, into build/docs; any warning is an error.
docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: install
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=. --pyi_out=. --grpc_python_out=. proto/recsys/v1/recommender.proto

# After a change of the ranges in pyproject.toml: install without pins, test, then write the pins down.
constraints:
	$(BIN)/python -m pip freeze --exclude-editable | sed '/^recsys/d' > constraints.txt

clean:
	rm -rf $(VENV) demo-out build *.egg-info
