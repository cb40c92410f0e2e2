# `make` alone explains itself. Every target makes or updates .venv first, when its lock has changed.
PYTHON ?= python3
VENV = $(PYTHON) tools/bootstrap.py
# One more than two cores: tests wait for other processes a third of their time.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help run doctor backup restore audit-verify config-apply rotate-encryption-key dev test test-all check test-at drills lint format lock manifests migration screenshots tour bench bench-portal vendor clean

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run:  ## install, migrate and start a whole Portico; Ctrl-C stops it
	@$(VENV) run python tools/run.py

dev:  ## the same, and every process starts again when the code changes
	@$(VENV) dev python tools/run.py --reload

# make answers 2 for every failure, so the command's own status is what `python -m app` answers.
doctor:  ## check settings, stores and the machine, and say how to fix what is wrong
	@$(VENV) run python -m app doctor

backup:  ## TO=file: the database as one file, while Portico runs; WITH_KEYS=passphrase-file adds the secrets, encrypted
	@test -n "$(TO)" || { echo 'say where to: make backup TO=/backups/portico.zip' >&2; exit 2; }
	@$(VENV) run python -m app backup --to "$(TO)" $(if $(WITH_KEYS),--with-keys "$(WITH_KEYS)")

restore:  ## FROM=file: such a file into an empty database; WITH_KEYS=passphrase-file takes the secrets from it too
	@test -n "$(FROM)" || { echo 'say where from: make restore FROM=/backups/portico.zip' >&2; exit 2; }
	@$(VENV) run python -m app restore --from "$(FROM)" $(if $(WITH_KEYS),--with-keys "$(WITH_KEYS)")

# Types are judged while tests run: what mypy says is shown when both are done, and either of them fails the target.
define beside_mypy
	@said=$$(mktemp); failed=0; $(VENV) dev mypy >"$$said" 2>&1 & mypy=$$!; \
	trap 'kill $$mypy; rm -f "$$said"; exit 130' INT TERM; \
	$(VENV) dev $(1) || failed=1; \
	wait $$mypy || failed=1; \
	echo "mypy: $$(cat "$$said")"; rm -f "$$said"; exit $$failed
endef

# Python keeps what it compiled, whatever the caller's environment says: each process of tests would compile it again.
test test-all test-at check: export PYTHONDONTWRITEBYTECODE =

PYTEST = pytest -n $(JOBS) --dist loadgroup -m "not drill"
# A quick file runs in one process: what it makes for its first test, the others have. Of a test of many cases six are shown,
# and of those that cost much as many as tests/costs.txt says.
QUICK = $(PYTEST) --dist loadfile -q --hypothesis-profile check --most-cases 6 -m "not slow and not browser and not services and not drill" -p no:schemathesis \
	--ignore tests/blueprints/api/test_schemathesis.py

audit-verify:  ## whether the audit log is as it was written: exit 0 intact, 1 broken; HEAD= one that was printed earlier
	@$(VENV) run python -m app audit verify $(if $(HEAD),--head "$(HEAD)")

config-apply:  ## bring providers, models and endpoints to what a file says; FILE=portico.json, PRUNE=1 deletes the others
	@test -n "$(FILE)" || { echo 'say which file: make config-apply FILE=portico.json' >&2; exit 2; }
	@$(VENV) run python -m app config apply --file "$(FILE)" $(if $(PRUNE),--prune)

rotate-encryption-key:  ## seal every secret with another encryption key, and wait for it
	@$(VENV) run python -m app encryption rotate

test:  ## everything: lint, types, migrations, services, browsers; ARGS="-k words" chooses tests
	@$(VENV) dev
	@$(VENV) dev ruff check
	$(call beside_mypy,$(PYTEST) $(ARGS))

test-all:  ## the same with more examples, every test on every database and through every door of /v1 that it can take (an hour)
	@$(VENV) dev
	@$(VENV) dev ruff check
	$(call beside_mypy,$(PYTEST) --every-combination --hypothesis-profile all $(ARGS))

check:  ## the quick part: lint, types, tests on SQLite without a browser; ARGS="-k words" chooses tests
	@$(VENV) dev
	@$(VENV) dev ruff check
	$(call beside_mypy,$(QUICK) $(ARGS))

test-at:  ## the quick tests with all clocks moved, Valkey's too (Linux, a C compiler); CLOCK="2028-02-29 23:59:50" in UTC
	@test -n "$(CLOCK)" || { echo 'say when: make test-at CLOCK="2028-02-29 23:59:50"' >&2; exit 2; }
	@$(VENV) dev
	@mkdir -p .cache
	@cc -O2 -shared -fPIC -o .cache/moved_clock.so tests/services/moved_clock.c
	@CLOCK_MOVED_S=$$(( $$(date -u -d "$(CLOCK)" +%s) - $$(date +%s) )) LD_PRELOAD=$(CURDIR)/.cache/moved_clock.so \
		$(VENV) dev $(QUICK) $(ARGS)

drills:  ## what takes minutes: fresh install, backup and restore, upgrade under traffic (UPGRADE_FROM=commit), hosts that die
	@$(VENV) dev pytest -n 2 -m drill --timeout 400 --durations 0 tests/drills $(ARGS)

lint:  ## what ruff, mypy and djlint have to say
	@$(VENV) dev ruff check
	@$(VENV) dev ruff format --check
	@$(VENV) dev mypy
	@$(VENV) dev djlint --lint --quiet app/templates

format:  ## put the code into its usual shape
	@$(VENV) dev ruff check --fix-only --quiet
	@$(VENV) dev ruff format

HELM ?= helm
CHART = $(HELM) template portico deploy/helm/portico

manifests:  ## deploy/kustomize from deploy/helm/portico, their one source (needs helm)
	@$(CHART) > deploy/kustomize/base/portico.yaml
	@$(CHART) --show-only templates/network.yaml --set ingress.enabled=false --set networkPolicies.enabled=false \
		--set routes.enabled=true > deploy/kustomize/openshift/routes.yaml

# uv lives in an environment of its own: it resolves for every Python and platform at once, which pip cannot.
UV = .cache/uv/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links

$(UV):
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.8

lock: $(UV)  ## requirements*.txt from requirements*.in; UPGRADE=1 takes newer versions of what is not pinned
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements.in -o requirements.txt
	@$(COMPILE) $(if $(UPGRADE),--upgrade) requirements-dev.in -c requirements.txt -o requirements-dev.txt

migration:  ## a new migration from the changed tables; M="what changes"
	@test -n "$(M)" || { echo 'say what changes: make migration M="add ..."' >&2; exit 2; }
	@$(VENV) dev flask --app wsgi db migrate -m "$(M)"

screenshots:  ## pictures of every page, wide and narrow, light and dark, below test-results/
	@$(VENV) dev python tools/screenshots.py $(ARGS)

bench:  ## the gateway beside nginx and LiteLLM, into docs/performance.md (half an hour); ARGS="--quick" tries it out
	@$(VENV) dev python -m bench.gateway $(ARGS)

bench-portal:  ## every page on a large organisation, into docs/performance.md (half an hour); ARGS="--quick" tries it out
	@$(VENV) dev python -m bench.portal $(ARGS)

tour:  ## docs/tour.md: a picture of every page
	@$(VENV) dev python tools/screenshots.py --tour

vendor:  ## the browser's libraries again from tools/vendor.lock.json (needs npm)
	@$(VENV) dev python tools/vendor_assets.py

clean:  ## remove what tools made; instance/ (your data) and .venv stay
	@rm -rf .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis test-results bench/build
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
