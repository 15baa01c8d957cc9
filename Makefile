# Every target sets itself up: a virtual environment in .venv, installed once and again when pyproject.toml changes.
# Paths are relative, so the checkout may lie anywhere, with spaces too, and `make -C checkout` works.

PYTHON ?= python3
MINIMUM := 3.11

STAMP := .venv/installed
PY := .venv/bin/python
quote = '$(subst ','\'',$(1))'

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format simulate chaos fuzz mutants bench compare-pipecat clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '%-15s %s\n' "$$name" "$$text"; done

demo: $(STAMP) ## Review a source tree with a team: make demo [SOURCE=path] [BUS=redis|nats|url [WORKERS=3] [KILL=1]].
	@$(PY) -m examples.code_review $(if $(BUS),--bus $(call quote,$(BUS))) $(if $(WORKERS),--workers $(call quote,$(WORKERS))) \
		$(if $(filter-out 0,$(KILL)),--kill) $(if $(SOURCE),$(call quote,$(SOURCE)))

test: $(STAMP) ## Run the tests: make test [ARGS='-k name'].
	@$(PY) -m pytest $(ARGS)

check: $(STAMP) ## Lint, formatting, types, and the plan of who may import whom.
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo "the files above are not formatted: make format" >&2; exit 1; }
	@$(PY) -m mypy --no-error-summary
	@$(PY) -m tests.house
	@$(PY) -m tests.typed

format: $(STAMP) ## Format the code, and repair what the linter can.
	@$(PY) -m ruff check --quiet --fix-only
	@$(PY) -m ruff format --quiet

simulate: $(STAMP) ## Random programs on a simulated network: make simulate SEEDS=1000, or SEED=n to replay one.
	@$(PY) -m tests.simulation $(if $(SEED),--seed $(call quote,$(SEED)),--seeds $(call quote,$(or $(SEEDS),1000)))

chaos: $(STAMP) ## Kill, cut and empty what a fleet is made of: make chaos [BUS=redis|nats] [SEED=n] [ROUNDS=n].
	@$(PY) -m tests.chaos $(if $(BUS),--bus $(call quote,$(BUS))) $(if $(SEED),--seed $(call quote,$(SEED))) \
		--rounds $(call quote,$(or $(ROUNDS),1))

fuzz: $(STAMP) ## A million mutated frames, with a key and without: make fuzz [SEED=n] [FRAMES=n].
	@$(PY) -m tests.fuzz $(if $(SEED),--seed $(call quote,$(SEED))) $(if $(FRAMES),--frames $(call quote,$(FRAMES)))

mutants: $(STAMP) ## Plant small faults, one at a time; each must be caught.
	@$(PY) -m tests.mutants

bench: $(STAMP) ## Measure against bare asyncio and the bare clients of Redis and NATS, one JSON line per case.
	@$(PY) -m benchmarks.local
	@$(PY) -m benchmarks.network

compare-pipecat: $(STAMP) ## Run examples on Pipecat too, installed in build/ for that, and compare what they print.
	@$(PY) -m tests.compare_pipecat

setup: $(STAMP) ## Only make the virtual environment: make setup [PYTHON=python3.13].
	@:

clean: ## Remove the virtual environment and everything generated.
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment left half made has no working pip: it is made anew.
$(STAMP): pyproject.toml
	@command -v $(call quote,$(PYTHON)) >/dev/null || { \
		echo "$(PYTHON) not found: install Python $(MINIMUM) or newer, or name one: make PYTHON=path" >&2; exit 1; }
	@$(call quote,$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(MINIMUM)".split("."))))' || { \
		echo "Python $(MINIMUM) or newer is needed, $(PYTHON) is $$($(call quote,$(PYTHON)) -V 2>&1):" \
			"name another: make PYTHON=path" >&2; exit 1; }
	@echo "setting up .venv, once" >&2
	@$(PY) -m pip --version >/dev/null 2>&1 || $(call quote,$(PYTHON)) -m venv --clear .venv
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
