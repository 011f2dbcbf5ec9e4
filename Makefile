# One command per intent; CI runs the same ones.
PYTHON ?= python3
SERVE := .venv-serve
DEV := .venv
GPU := .venv-gpu
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
# Debian packages that tests and benchmarks start: other load generators, a database for the ledger, Prometheus, a browser, a
# clock that can be set.
TEST_PACKAGES := \
	chromium \
	chromium-driver \
	hey \
	libfaketime \
	postgresql \
	prometheus \
	wrk

.DEFAULT_GOAL := help
.PHONY: help demo up setup test-setup test coverage test-slow fuzz lint bench artifacts manifests page-libraries lock audit sbom chaos gpu-check clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(SERVE)/ready: requirements/serve.lock pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/pip install --quiet --no-deps --require-hashes -r requirements/serve.lock
	$(SERVE)/bin/pip install --quiet --no-deps -e .
	@touch $@

$(DEV)/ready: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet torch==2.13.0
	$(DEV)/bin/pip install --quiet --no-deps --require-hashes -r requirements/dev.lock
	$(DEV)/bin/pip install --quiet --no-deps -e .
	@touch $@

# onnxruntime goes before onnxruntime-gpu comes, since they overwrite each other; without TensorRT the rest is still checked.
$(GPU)/ready: requirements/dev.lock requirements/image-gpu.lock pyproject.toml
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/pip install --quiet torch==2.13.0
	$(GPU)/bin/pip install --quiet --no-deps --require-hashes -r requirements/dev.lock
	$(GPU)/bin/pip uninstall --quiet --yes onnxruntime
	$(GPU)/bin/pip install --quiet --no-deps --require-hashes -r requirements/image-gpu.lock
	$(GPU)/bin/pip install --quiet 'tensorrt>=11' 'cuda-bindings>=13' || echo "TensorRT is not to be had here"
	$(GPU)/bin/pip install --quiet --no-deps -e .
	@touch $@

demo: $(SERVE)/ready ## serve, classify real images over HTTP and gRPC, show the answers, stop
	$(SERVE)/bin/convoy demo

up: $(SERVE)/ready ## serve until Ctrl-C
	$(SERVE)/bin/convoy up

setup: $(DEV)/ready ## install what development needs into .venv

test-setup: ## install the Debian packages that tests start, if they are missing (root or sudo)
	@missing=$$(for package in $(TEST_PACKAGES); do dpkg -s $$package >/dev/null 2>&1 || printf ' %s' $$package; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; \
	else \
	  echo "the tests need Debian packages that are missing; as root: apt-get install$$missing" >&2; exit 1; \
	fi

# test-setup comes first: without root it fails at once, before the long Python setup.
test: test-setup $(DEV)/ready ## install what the tests need; quick tests and end-to-end tests on real Ray
	$(DEV)/bin/pytest -m "not slow and not gpu" -n 2 --dist loadgroup

coverage: test-setup $(DEV)/ready ## the same tests, with the lines that none of them runs; takes twice the time
	$(DEV)/bin/pytest -m "not slow and not gpu" -n 2 --dist loadgroup --cov --cov-report=term-missing:skip-covered

test-slow: test-setup $(DEV)/ready ## tests that need data sets, long runs or many processes
	$(DEV)/bin/pytest -m "slow and not gpu" -n 2 --dist loadgroup

fuzz: $(DEV)/ready ## send damaged images and nearly valid requests, five minutes each; findings go to runs/fuzz
	$(DEV)/bin/python -m tests.fuzz images --seconds 300
	$(DEV)/bin/python -m tests.fuzz requests --seconds 300

lint: $(DEV)/ready ## ruff, mypy, import rules
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports

bench: $(DEV)/ready $(SERVE)/ready ## measure the data plane beside other servers, write docs/performance.md
	$(DEV)/bin/python -m benchmarks.run

RECIPES := lenet5-mnist resnet20-cifar10 squeezenet-cifar10 vgg-cifar10 preresnet-cifar10 densenet-cifar10 nin-cifar10 \
	alexnet-cifar10 zfnet-cifar10 googlenet-cifar10 stochastic-depth-cifar10 wide-resnet-cifar10 resnext-cifar10 fractalnet-cifar10

artifacts: $(DEV)/ready ## train and compile the bundled models again, one after the other
	for recipe in $(RECIPES); do \
	  $(DEV)/bin/python -m models.train $$recipe --out runs/$$recipe && \
	  $(DEV)/bin/python -m models.compile $$recipe --checkpoint runs/$$recipe/checkpoint.pt || exit 1; \
	done
	$(DEV)/bin/python -m models.zoo
	$(DEV)/bin/python -m models.readme

manifests: $(DEV)/ready ## render the Serve config of every Kubernetes overlay again
	for overlay in deploy/kubernetes/overlays/*; do \
	  $(DEV)/bin/convoy render --config $$overlay/convoy.yaml --output $$overlay/serve.yaml || exit 1; \
	done

page-libraries: ## fetch the page's chart libraries again, at their versions
	scratch=$$(mktemp -d) && npm install --silent --no-fund --prefix $$scratch d3@7.9.0 @observablehq/plot@0.6.17 && \
	cp $$scratch/node_modules/d3/dist/d3.min.js $$scratch/node_modules/@observablehq/plot/dist/plot.umd.min.js serve/http/page/libraries/ && \
	cp $$scratch/node_modules/d3/LICENSE serve/http/page/libraries/LICENSE.d3 && \
	cp $$scratch/node_modules/@observablehq/plot/LICENSE serve/http/page/libraries/LICENSE.plot; rm -rf $$scratch

RESOLVE := $(DEV)/bin/uv pip compile -q pyproject.toml --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header

lock: ## resolve the dependencies again, with hashes
	$(DEV)/bin/python -m pip install --quiet uv
	$(RESOLVE) --extra cpu -o requirements/serve.lock
	for kind in cpu gpu; do \
	  $(RESOLVE) --extra $$kind --extra postgres --extra tracing -o requirements/image-$$kind.lock || exit 1; \
	done
	$(RESOLVE) --extra cpu --extra compile --extra dev -o requirements/dev.lock

ADVISORIES ?= runs/advisories.zip

audit: $(DEV)/ready ## report known vulnerabilities of the locked packages (OSV advisories, fetched if missing)
	test -f $(ADVISORIES) || curl -sSfL --create-dirs -o $(ADVISORIES) https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip
	$(DEV)/bin/python -m supply.audit --advisories $(ADVISORIES) requirements/*.lock

sbom: $(DEV)/ready ## bill of materials (CycloneDX) of what `make up` runs
	@$(DEV)/bin/python -m supply.sbom requirements/serve.lock

chaos: $(DEV)/ready ## inject faults under load, one after the other; writes docs/reliability.md
	$(DEV)/bin/python -m benchmarks.chaos --write

gpu-check: ## check everything that needs an NVIDIA GPU; writes docs/gpu.md
	@nvidia-smi --list-gpus 2>/dev/null | grep -q . || \
	{ echo "no GPU: nvidia-smi finds none; run this where there is an NVIDIA card and its driver" >&2; exit 1; }
	$(MAKE) $(GPU)/ready
	$(GPU)/bin/python -m benchmarks.gpu --write

clean: ## remove everything that make created
	rm -rf $(SERVE) $(DEV) $(GPU) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
