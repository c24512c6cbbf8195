# Every target makes what it needs in .venv on a machine that has only Python (3.11 or newer, with venv) and make.
#
#   make demo       replay the recorded trace that comes with the repository, and show what each kernel would do
#   make test       the fast tier: no root, no emulator, no network
#   make hold       the kept answers of booted kernels, held against the model
#   make lint       style, types, the packages' import arrows
#   make bench      benchmarks, beside the peers they are measured against
#   make kernel     the tier that boots real kernels (needs QEMU, Bochs; see docs/lab.md)
#   make compare    random scenarios, asked of the model and of booted kernels
#   make browser    the tier that opens the report in headless Chromium
#   make wheel      the sdist and the wheel: contents, metadata, README, and the wheel in an environment of its own
#   make prometheus the metrics, held against promtool, node_exporter and a Prometheus on loopback
#   make software   real VMs, databases and a JVM against smaps, cgroups and thpmaps; the documents' commands that need programs
#   make clean      remove .venv and every cache

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test hold lint bench kernel compare browser wheel prometheus software clean

# A VM that boots, fills a redis and serves it, recorded in 7.6 s of its instructions; each stands for 100, khugepaged wakes every 10 s.
RULES := 6.1 6.12 6.18 7.3 2.6.38 thp-base
demo: $(VENV)/.plain
	@mkdir -p out
	@echo "Replaying a recorded VM under six kernels. The first time the model is compiled for this machine: a minute or two."
	$(BIN)/secondsight replay examples/traces/redis-vm.parquet --time-scale 100 $(RULES:%=-r %) --map 7.3 --picture out/redis-vm.html
	@echo "The same for each kernel profile, as a picture: out/redis-vm.html"

test: $(VENV)/.dev
	$(PYTEST) -n auto --maxprocesses 4 --dist loadgroup

# Every kept answer of a booted kernel against the model: whoever changes src/secondsight/mm/ runs it. No boot; two minutes.
hold: $(VENV)/.dev
	@printf '%s\n' examples/answers/*.json.zst | xargs -P 2 -n 8 $(BIN)/secondsight lab hold

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pre-commit validate-config

# SOME="judging memory": only those.
bench: $(VENV)/.bench
	$(BIN)/python bench/run.py $(SOME)

# Two at once: a guest has one CPU. What shares a booted guest is in one file.
kernel: $(VENV)/.kernels
	$(PYTEST) -m kernel -n 2 --dist loadfile

# Random scenarios, the day's own (SEED=N: others): model and kernel must answer alike in every field. The first difference fails, with
# the scenario shrunk and the command that shows it again; those of a profile that no kernel was asked for yet are told.
# Beside the usual pairs, two others each day.
SEED := $(shell date +%Y%m%d)
PAIRS = 6.1/npt=150 6.1/shadow=150 6.12/npt=150 newest/npt=64 6.1/ept=20 6.1/ept-noad=20 $(shell $(BIN)/python .ci/rotation)
compare: $(VENV)/.kernels
	@SEED=$(SEED) BIN=$(BIN) .ci/compare $(PAIRS)

browser: $(VENV)/.dev
	$(PYTEST) -m browser

wheel: $(VENV)/.dev
	$(PYTEST) -m wheel -n 0 tests/test_wheel.py

prometheus: $(VENV)/.dev
	$(PYTEST) -m prometheus -n 0 tests/host -rs

software: $(VENV)/.dev
	$(PYTEST) -m software -n 0 -rs

# Debian's newest kernel changes daily and can be missing from a mirror for a day; the others must be there.
$(VENV)/.kernels: $(VENV)/.dev
	$(BIN)/secondsight lab fetch 6.1 6.12
	$(BIN)/secondsight lab fetch newest || echo "Debian's newest kernel cannot be fetched today: its tests are left out"
	@touch $@

# -- environments: one .venv, a stamp for each set of packages in it ---------------------------------------------

$(VENV)/.plain: pyproject.toml | $(BIN)/python
	@echo "Installing SecondSight into $(VENV), once ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing SecondSight and its development tools into $(VENV), once ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.plain

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	@echo "Installing SecondSight and the peers it is measured against into $(VENV), once ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[bench]'
	@touch $@ $(VENV)/.plain

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec "$$python" -m venv $(VENV); \
	  fi; \
	done; \
	echo "make: no Python 3.11 or newer with its venv module was found; install one (Debian 12: apt-get install python3-venv)" \
	     "or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/out out
	find src tests -name __pycache__ -prune -exec rm -rf {} +
