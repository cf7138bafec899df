# Two commands: `make run` and `make test`. Both do all their own set-up; `make help` lists the rest.

VENV := .venv
# The first Python that runs (a name on the path may be a shim that does not).
PYTHON ?= $(shell for p in python3.11 python3; do $$p -c '' 2>/dev/null && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help venv

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

venv: $(VENV)/.ready  ## make the virtual environment (.venv) with everything pinned

$(VENV)/.ready: requirements/dev.txt requirements/install.sh pyproject.toml
	requirements/install.sh '$(PYTHON)' $(VENV)
	@touch $@
