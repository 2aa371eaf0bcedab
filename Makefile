# `make demo` shows the project, `make test` tests it; both make their environment first.
# Works with GNU make 3.81 (macOS) and later.
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV ?= uv

# `make setup PYTHON=...` looks at the environment again: it is made anew where it is of another version.
ifeq ($(origin PYTHON),command line)
.PHONY: $(READY)
endif

.PHONY: help setup demo test test-faults docs package lint format lock schema clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST)

setup: $(READY) ## the environment in .venv, from requirements.lock (PYTHON=... chooses the interpreter)
	@echo "The environment is ready. Activate it with  . $(BIN)/activate"

$(READY): requirements.lock pyproject.toml scripts/setup.sh
	@VENV="$(VENV)" PYTHON="$(PYTHON)" sh scripts/setup.sh
	@touch $@

demo: $(READY) ## Table IV and Figure 9 on the embedded dataset, from nothing
	@$(BIN)/comics demo

test: $(READY) ## the whole test suite (ARGS=... adds arguments of pytest)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-faults: $(READY) ## inject every fault there is a test for, and write docs/reliability.md's table
	FAULTS_TABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/faults $(ARGS)

docs: $(READY) ## the documentation as a site in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(READY) ## wheel and source distribution, in dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

lint: $(READY) docs ## ruff, snakefmt, mypy, the floors of the package, the documentation and snakemake --lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	sh scripts/lint_workflow.sh $(BIN)/snakemake

format: $(READY) ## write what `make lint` wants
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

lock: ## requirements.lock anew from pyproject.toml (needs uv)
	$(UV) pip compile --universal --generate-hashes --extra dev --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock pyproject.toml

schema: $(READY) ## workflow/schemas/params.schema.json anew from comics/params
	$(BIN)/comics params-schema --output workflow/schemas/params.schema.json

clean: ## remove what the workflow rendered; data, results and checkpoints stay
	rm -rf .snakemake/log logs reports/figures
	find reports -mindepth 1 ! -name README.md -delete
