# Commands for developers and newcomers; `make help` lists them. Each installs what it needs, and is quick the second time.

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
PY := .venv/bin/python
export PYTHON ?= python3
export DESTDIR ?=
# Tests start thousands of agents and commands; compiled anew by each, they take half as long again.
unexport PYTHONDONTWRITEBYTECODE
# One file that runs on any Linux of its architecture, and starts without a loader.
PLUGIN_FLAGS := -std=c11 -O2 -Wall -Wextra -Werror -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -static-pie

.PHONY: help demo demo-runtimes test lint bench bench-docs generate venv install uninstall deps clean
.DELETE_ON_ERROR:

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: deps .venv/run.stamp  ## three hosts, a network across them, containers, pings and a published port
	@$(SUDO) $(PY) -m netagent.lab.demo

demo-runtimes: deps .venv/run.stamp cni/netagent  ## containers of containerd, Podman, Docker and netagent in one network of three hosts
	@$(SUDO) $(PY) -m netagent.lab.demo_runtimes

test: deps .venv/dev.stamp cni/netagent  ## all tests: unit, kernel, cluster
	@$(SUDO) scripts/test

lint: .venv/dev.stamp  ## formatting, lint, types, generated code and pages
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) scripts/generate.py --check
	@$(PY) scripts/docs.py --check

bench: deps .venv/dev.stamp cni/netagent  ## netagent beside its peers, report in build/bench; ONLY=cni, QUICK=1, FULL=1
	@$(SUDO) $(PY) -m tests.bench $(if $(QUICK),--quick,$(if $(FULL),--full)) $(ONLY)

bench-docs: .venv/dev.stamp  ## what make bench has left in build/bench into docs/performance.md, with its plots
	@$(PY) -m tests.bench docs

generate: .venv/dev.stamp  ## the gRPC code from proto/
	@$(PY) scripts/generate.py

venv: .venv/dev.stamp  ## .venv with everything a developer needs

install: cni/netagent  ## program, CNI plugin, systemd units and configuration, below DESTDIR; RUN=yes allows `netagent run`
	@$(if $(DESTDIR),,$(SUDO)) env RUN=$(RUN) scripts/install install

uninstall:  ## take away what install put there
	@$(if $(DESTDIR),,$(SUDO)) scripts/install uninstall

deps:  ## the Debian packages that are missing
	@scripts/deps

# Written beside and renamed, as several may build it at once. CPPFLAGS may give it other paths (docs/cni.md).
cni/netagent: cni/netagent.c
	@command -v $(firstword $(CC)) >/dev/null || { \
		echo "cni/netagent: no C compiler: apt-get install gcc libc6-dev, or name one: make CC=/usr/bin/clang" >&2; exit 1; }
	@$(CC) $(CPPFLAGS) $(PLUGIN_FLAGS) $(CFLAGS) -o $@.$$$$ $< $(LDFLAGS) && mv $@.$$$$ $@ || { rm -f $@.$$$$; exit 1; }

.venv/run.stamp: pyproject.toml constraints.txt | deps
	@scripts/venv .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | deps
	@scripts/venv .[dev]
	@touch .venv/run.stamp $@

clean:  ## remove what these commands have made in this directory
	@$(SUDO) rm -rf .venv build dist cni/netagent .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@$(SUDO) find . -name __pycache__ -type d -prune -exec rm -rf {} +
