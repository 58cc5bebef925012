# Tuinkoepel. `make demo` runs the whole thing; `make test` runs every test. Both set up what they need.
# Debian with python3 >= 3.11, make and a package registry is enough.

BASE_PORT ?= 8000
VAR ?= var
BIN = .venv/bin
.DEFAULT_GOAL = help
.PHONY: help demo test check lock format translations check-migrations clean run-env dev-env

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

demo: run-env ## Run hub, Almere and Dronten (BASE_PORT=8000 VAR=var); Ctrl-C ends it
	@$(BIN)/python deploy/demo.py --base-port $(BASE_PORT) --var $(VAR)

test: dev-env ## Run all tests, PostgreSQL, RabbitMQ and browser ones included
	@deploy/test_needs.sh
	@$(BIN)/python -m pytest

check: dev-env ## Format, lint, types, import contracts, templates, scripts, translations, migrations
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/djlint --quiet --lint shared services
	@deploy/test_needs.sh shellcheck && shellcheck deploy/*.sh .ci/run
	@$(BIN)/python deploy/translations.py --check
	@$(MAKE) --no-print-directory check-migrations

check-migrations: dev-env ## The migrations say what the code says
	@rm -rf .check-migrations
	@TUINKOEPEL_HUB_STATE=.check-migrations/hub sh -c '$(BIN)/hub db upgrade && $(BIN)/hub db check'
	@TUINKOEPEL_NODE_STATE=.check-migrations/node sh -c '$(BIN)/town-node db upgrade && $(BIN)/town-node db check'
	@rm -rf .check-migrations

format: dev-env ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix-only --quiet .

translations: dev-env ## Collect new texts into the catalogues
	@$(BIN)/python deploy/translations.py
	@$(BIN)/python shared/assets/build.py

lock: dev-env ## Lock the dependencies anew, with hashes and without host names
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra pg -o requirements.txt pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --extra pg --extra dev -c requirements.txt -o requirements-dev.txt pyproject.toml

clean: ## Remove what was made here, but not the demo's state
	@rm -rf .venv .check-migrations .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis shared/static/vendor

run-env:
	@deploy/venv.sh run

dev-env:
	@deploy/venv.sh dev
