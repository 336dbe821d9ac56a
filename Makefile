# Everything a person or CI runs. `make demo` and `make test` need nothing else typed before them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch>=2.11,<2.14

.PHONY: demo test test-slow lint types docs clean browser

# torch first: the range decides which build is taken, and the other packages then find it in place.
$(VENV)/.runtime: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("mygpt needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[all]"
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1" && $(BIN)/python -m pip install --quiet --disable-pip-version-check --group dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "trl>=1.16,<2"  # its chat templates only
	touch $@

# Browser tests use Debian's Chromium. Without it and without root they are skipped, and say so.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; }; } || echo "No Chromium: browser tests will be skipped."

demo: $(VENV)/.runtime
	$(BIN)/mygpt up examples/handbook --home .mygpt
	@echo
	@echo "Chat in the terminal:  $(BIN)/mygpt chat handbook"
	@echo "Chat in the browser:   $(BIN)/mygpt serve handbook"

# Two processes of one thread each are faster than one of two; more would want more memory.
test: $(VENV)/.dev browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -q -n 2 --dist loadgroup --no-loadscope-reorder

test-slow: $(VENV)/.dev browser
	$(BIN)/python -m pytest -m slow -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python -m benchmarks.readme
	$(BIN)/python -m benchmarks.method_pages

clean:
	rm -rf $(VENV) .mygpt .pytest_cache .mypy_cache .ruff_cache
