# Every target sets up what it needs: a Python of 3.11 or newer is enough (Node.js and npm too for `check`).
# Choose the interpreter with `make PYTHON=…`; the environments are .venv*, `make clean` removes them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
export PYTHON

newest := .venv/ready
floor := .venv-floor/ready
proto := .venv-proto/ready
bench := .venv-bench/ready
charts := .venv-charts/ready
kubernetes := tests/charts/go
backend := .venv-backend/ready
uv := .venv-lock/ready
buf := tools/buf/node_modules/ready
shop := examples/shop/node
go := tests/interop/go
# Tests of one file run in one process, two files at a time; what starts a whole mesh does so afterwards, by itself.
spread := -n 2 --dist loadfile
meshes := tests/e2e tests/examples
# What no dependency's version can change (bench, packaging, the demo's table) is tested on the newest alone.
on_floor := $(addprefix tests/,auth core gatekeeper inject injector lua_host rpc sidecar telemetry)
# Of that, `check` runs what talks to gRPC, OpenTelemetry and SQLAlchemy, to be short; `make floor` runs all.
on_floor_in_check = $(addprefix tests/,auth rpc sidecar telemetry)
meshes_on_floor := $(addprefix tests/,examples e2e/test_rollover.py e2e/test_languages.py e2e/test_kubernetes.py)
# What does not disturb each other, at once, each with its output in one piece.
beside = $(MAKE) --no-print-directory --output-sync=recurse
npm_ci = npm ci --loglevel=error --ignore-scripts --no-audit --no-fund

.PHONY: help
help: ## say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(newest) ## start a mesh, run the shop on it, attack it
	@if [ ! -f $(shop)/package-lock.json ]; then :; \
	elif ! command -v npm >/dev/null; then echo "sealmesh: no npm, so the demo's Node service runs in Python instead"; \
	else (cd $(shop) && $(npm_ci)) || echo "sealmesh: npm ci failed, so the demo's Node service runs in Python instead"; fi
	@.venv/bin/mesh demo

.PHONY: test
test: $(newest) $(backend) ## every test, with coverage of mesh/core at 100 % of branches
	@.venv/bin/python -m pytest $(spread) --cov $(addprefix --ignore=,$(meshes)) tests
	@.venv/bin/python -m pytest $(spread) $(meshes)

.PHONY: check
check: ## what CI runs: lint, types, proto freshness, charts, interop, the tests on newest and oldest
	@$(beside) -j 4 environments
	@$(beside) -j 2 lint types fresh
	@$(beside) -j 2 charts interop
	@$(MAKE) --no-print-directory test
	@$(MAKE) --no-print-directory floor on_floor="$(on_floor_in_check)"

.PHONY: environments
environments: $(newest) $(floor) $(charts) $(backend) $(proto) $(buf) $(go)/bin/ready $(shop)/node_modules ## all that check needs

.PHONY: soak
soak: $(newest) ## what takes minutes and is run by hand
	@.venv/bin/python -m pytest -m soak tests

.PHONY: flood
flood: $(newest) ## other callers' p99 while each listener is attacked (ARGS="--listener node --attack PING"); 35 minutes
	@.venv/bin/python -m bench.flood $(ARGS)

.PHONY: lint
lint: $(newest) $(buf) ## ruff and buf
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@tools/buf/node_modules/.bin/buf lint

.PHONY: types
types: $(newest) ## mypy, strict
	@.venv/bin/mypy

.PHONY: fresh
fresh: $(proto) ## is the generated code what the protos say?
	@.venv-proto/bin/python tools/proto.py --check

.PHONY: floor
floor: export HYPOTHESIS_PROFILE = floor
floor: $(floor) ## the lowest version of each dependency, with every test that touches one
	@.venv-floor/bin/python -m pytest -m "not soak and not newest" $(spread) $(on_floor)
	@.venv-floor/bin/python -m pytest $(spread) $(meshes_on_floor)

.PHONY: charts
charts: $(charts) ## render, lint and validate the charts, and build what the images hold
	@.venv-charts/bin/python tools/chart_readme.py --check
	@.venv-charts/bin/python -m pytest tests/charts

.PHONY: cluster
cluster: $(charts) $(kubernetes)/bin/ready ## the charts on a real Kubernetes API server, by hand: to build it takes a quarter of an hour
	@.venv-charts/bin/python -m pytest -m soak tests/charts

.PHONY: charts-readme
charts-readme: $(charts) ## write the charts' READMEs anew from their values
	@.venv-charts/bin/python tools/chart_readme.py

.PHONY: images
images: ## build the images for amd64 and arm64 (PYTHON_DIGEST=sha256:… of python:3.13-slim-trixie; PREFIX=REGISTRY/sealmesh, TAG, PUSH=--push)
	@for image in control sidecar lua; do \
	  docker buildx build --platform linux/amd64,linux/arm64 --file images/Dockerfile --target $$image \
	    --build-arg PYTHON_DIGEST=$(PYTHON_DIGEST) --sbom=true --provenance=true --tag $(or $(PREFIX),sealmesh)/$$image:$(or $(TAG),0.1.0) \
	    $(PUSH) . || exit 1; \
	done

.PHONY: interop
interop: $(newest) $(go)/bin/ready $(shop)/node_modules ## gRPC's interoperability cases between Go, Node and Python, through the mesh
	@.venv/bin/python -m pytest -q tests/interop/matrix.py tests/interop/repeats.py

.PHONY: proto
proto: $(proto) ## write the generated code anew
	@.venv-proto/bin/python tools/proto.py

.PHONY: bench
bench: $(bench) ## direct, embedded, sidecar and Envoy pair, side by side (ARGS="--quick --json FILE"); then Lua; policy changes; telemetry
	@.venv-bench/bin/python -m bench $(ARGS)
	@.venv-bench/bin/python -m bench.jailed
	@.venv-bench/bin/python -m bench.push
	@.venv-bench/bin/python -m bench.telemetry

.PHONY: lock
lock: $(uv) ## write requirements/ anew from pyproject.toml, at today's newest
	@tools/lock .venv-lock/bin/uv

.PHONY: clean
clean: ## remove environments and caches
	rm -rf .venv* .*_cache .coverage .hypothesis build dist tools/buf/node_modules $(shop)/node_modules $(go)/bin $(kubernetes)/bin
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(newest): requirements/newest.txt pyproject.toml tools/venv
	@tools/venv .venv $< .
	@touch $@

$(floor): requirements/floor.txt pyproject.toml tools/venv
	@tools/venv .venv-floor $< .
	@touch $@

$(charts): requirements/charts.txt pyproject.toml tools/venv
	@tools/venv .venv-charts $< .
	@touch $@

$(bench): requirements/bench.txt pyproject.toml tools/venv
	@tools/venv .venv-bench $< .
	@touch $@

$(backend): requirements/backend.txt tools/venv
	@tools/venv .venv-backend $<
	@touch $@

$(proto): requirements/proto.txt tools/venv
	@tools/venv .venv-proto $<
	@touch $@

$(uv): requirements/lock.txt tools/venv
	@tools/venv .venv-lock $<
	@touch $@

# With the Go there is, if it is new enough for the module; else with the one that is pinned.
$(go)/bin/ready: $(go)/go.mod $(go)/go.sum requirements/go.txt tools/venv
	@(cd $(go) && go list -m) >/dev/null 2>&1 || tools/venv .venv-go requirements/go.txt
	@cd $(go) && PATH="$(CURDIR)/.venv-go/bin:$$PATH" go build -o bin/ google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server
	@touch $@

# The version is what Helm asks the API server for.
$(kubernetes)/bin/ready: $(kubernetes)/go.mod $(kubernetes)/go.sum requirements/go.txt tools/venv
	@(cd $(kubernetes) && go list -m) >/dev/null 2>&1 || tools/venv .venv-go requirements/go.txt
	@cd $(kubernetes) && export PATH="$(CURDIR)/.venv-go/bin:$$PATH" && version=$$(go list -m -f '{{.Version}}' k8s.io/kubernetes) \
	  && go build -trimpath -o bin/etcd go.etcd.io/etcd/server/v3 \
	  && go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$$version" -o bin/ \
	    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager
	@touch $@

$(shop)/node_modules: $(shop)/package-lock.json
	@command -v npm >/dev/null || { echo "sealmesh: npm is needed for the interop cases: install Node.js 20 or newer" >&2; exit 1; }
	@cd $(shop) && $(npm_ci)
	@touch $@

$(buf): tools/buf/package-lock.json
	@command -v npm >/dev/null || { echo "sealmesh: npm is needed to lint the protos: install Node.js 20 or newer" >&2; exit 1; }
	@cd tools/buf && $(npm_ci)
	@touch $@
