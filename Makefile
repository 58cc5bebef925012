# Tuinkoepel. `make demo` runs the whole thing; `make test` runs every test. Both set up what they need.
# Debian with python3 >= 3.11, make and a package registry is enough.

BASE_PORT ?= 8000
VAR ?= var
BIN = .venv/bin
.DEFAULT_GOAL = help
.PHONY: help demo test bench mutants nemesis check lock format translations clean run-env dev-env

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

demo: run-env ## Run hub, Almere and Dronten (BASE_PORT=8000 VAR=var; LOSE=dronten: its disk dies); Ctrl-C ends it
	@exec $(BIN)/python deploy/demo.py --end-with-starter --base-port "$(BASE_PORT)" --var "$(VAR)" --lose "$(LOSE)"

test: dev-env ## Run all tests, PostgreSQL, RabbitMQ, nginx and browser ones included
	@deploy/test_needs.sh
	@$(BIN)/python -m pytest -n auto --dist loadfile

bench: dev-env ## Measure speed, as ratios beside the raw limits (three minutes on a quiet machine; SUBJECTS=latency for a part)
	@deploy/test_needs.sh postgresql rabbitmq-server
	@$(BIN)/python -m tests.benchmarks $(SUBJECTS)

mutants: dev-env ## Break the code on purpose, one promise at a time: which test notices? (five minutes; MUTANTS="fork salt" for some)
	@deploy/test_needs.sh postgresql rabbitmq-server
	@$(BIN)/python -m tests.mutants $(MUTANTS)

nemesis: dev-env ## A quarter of an hour in which everything goes wrong, and then the books are compared (MINUTES=15 SEED=7; root)
	@deploy/test_needs.sh postgresql rabbitmq-server
	@$(BIN)/python -m tests.nemesis $(if $(MINUTES),--minutes "$(MINUTES)") $(if $(SEED),--seed "$(SEED)")

check: dev-env ## Format, lint, types, import contracts, templates, scripts, translations, migrations
	@deploy/check.sh

format: dev-env ## Format code and templates
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/djlint --quiet --reformat shared services >/dev/null || true

translations: dev-env ## Collect new texts into the catalogues
	@$(BIN)/python deploy/translations.py
	@$(BIN)/python shared/assets/build.py

lock: dev-env ## Lock the dependencies anew, with hashes and without host names
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra pg -o requirements.txt pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra pg --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml

clean: ## Remove what was made here, but not the demo's state
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis shared/static/vendor

run-env:
	@deploy/venv.sh run

dev-env:
	@deploy/venv.sh dev
