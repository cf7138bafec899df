# Two commands: `make run` and `make test`. Both do all their own set-up; `make help` lists the rest.
#
# Settings: PYTHON=/path/to/python (3.11 or newer), ARGS="-k name" (for pytest), WORKERS=1 (pytest processes).

VENV := .venv
NEWER_VENV := .venv-3.13
WORKERS ?= auto
ARGS ?=

# The first that runs: a name on the path may be a shim that does not.
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)
# Python 3.13, where it is beside the first one.
NEWER := $(shell for p in python3.13 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.13*/bin/python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && echo $$p && break; done)

# What the extension is built from, by the install.
ENGINE := setup.py $(wildcard lbproxy/relay/native/*.[ch])

PYTEST := -m pytest -n $(WORKERS) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help run test check bench sanitize fuzz soak image venv servers requirements clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

run: venv  ## set everything up and run the demo
	@exec $(VENV)/bin/lbproxy demo

# Python 3.13 first, so that the last line is the one that counts every test.
test: venv servers $(if $(NEWER),$(NEWER_VENV)/.ready)  ## set everything up and run every test
	$(if $(NEWER),$(NEWER_VENV)/bin/python $(PYTEST) -m "not foreign and not slow")
	$(VENV)/bin/python $(PYTEST)

check: venv  ## format, lint, types, layers
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -q tests/architecture

bench: venv servers  ## measure beside HAProxy and nginx (see benchmarks/)
	benchmarks/run $(ARGS)

sanitize: venv servers  ## run the native relay's tests under the sanitizers, and the fuzzer for a moment
	tests/relay/native/sanitized.sh address,undefined
	tests/relay/native/sanitized.sh thread
	tests/relay/native/fuzz.sh 20

fuzz:  ## fuzz the engine's state machine: five minutes, or ARGS=SECONDS
	tests/relay/native/fuzz.sh $(ARGS)

soak: venv servers  ## run the long campaigns in full size, one after the other, and tell their figures
	LBPROXY_CONFORMANCE=full $(VENV)/bin/python -m pytest -n 0 -s -v tests/soak tests/e2e/test_scale.py $(ARGS)

image:  ## build the container image
	@docker info >/dev/null 2>&1 || { echo "make image: no container engine answers (tried: docker info)" >&2; exit 1; }
	docker build --tag lbproxy .

venv: $(VENV)/.ready  ## make the virtual environment with everything pinned

$(VENV)/.ready: requirements/dev.txt requirements/install.sh pyproject.toml $(ENGINE)
	requirements/install.sh '$(PYTHON)' $(VENV)
	@touch $@

$(NEWER_VENV)/.ready: requirements/dev.txt requirements/install.sh pyproject.toml $(ENGINE)
	requirements/install.sh '$(NEWER)' $(NEWER_VENV)
	@touch $@

servers:  ## install the foreign servers the tests need
	@tests/servers/install.sh

requirements: venv  ## pin the requirements anew (UPGRADE=--upgrade takes the newest versions)
	requirements/compile.sh $(UPGRADE)

clean:  ## remove everything made here
	rm -rf $(VENV) $(NEWER_VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find lbproxy tests -name __pycache__ -prune -exec rm -rf {} +
	find lbproxy -name '*.so' -delete
