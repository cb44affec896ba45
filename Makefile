# demo: set up and run the main job on a drawn corpus.  test: check, then every test.
# check: lint, format, types, architecture.             lock: compile all locks anew.
# soak: the tests of faults with many more seeded runs, 20 minutes on 2 cores.  long: what `make test` leaves out.
.PHONY: demo test check lock long soak

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
DEMO := demo
LOCK := requirements.lock
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)

export RAY_USAGE_STATS_ENABLED := 0

demo: $(VENV)/.installed
	$(BIN)/fakesift demo $(DEMO)

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not soak"

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

soak: $(VENV)/.installed
	FAKESIFT_KILLS=24 FAKESIFT_FUZZ=5000 $(BIN)/python -m pytest -n 2 --dist loadfile tests/faults

long: $(VENV)/.installed
	$(BIN)/python -m pytest -m soak --ignore tests/faults

lock:
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links \
		--all-extras --group dev --group prebuilt pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --constraint requirements.lock \
		--all-extras --group prebuilt pyproject.toml -o cluster/requirements-cpu.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --constraint requirements.lock \
		--all-extras --group prebuilt pyproject.toml cluster/gpu.in -o cluster/requirements-gpu.lock

$(VENV)/.installed: $(LOCK) pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "fakesift needs Python 3.11, 3.12 or 3.13 (python3 with venv); none was found on PATH"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check "uv==$(UV_VERSION)"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync -q --require-hashes $(LOCK)
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation --editable .
	touch $@
