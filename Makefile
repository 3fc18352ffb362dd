# Run `make help` for the list of targets. Needs GNU make 4, Go 1.26, bash and git; RACE=-race also needs gcc.

# Older versions, such as the one of macOS, ignore .SHELLFLAGS, so a recipe would continue after an error.
ifeq ($(filter output-sync,$(.FEATURES)),)
$(error GNU make 4 is required, but this is $(MAKE_VERSION): on macOS, run `brew install make`, then gmake)
endif

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Go already uses every core within one target: parallel targets would only compete for them. test-binary is the
# exception.
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

# ---- Settings for the command line ----------------------------------------------------------

# The image's name and tag, in the archive and in the rendered manifests.
IMAGE ?= localhost/metrics-server:dev
# The platforms of `make image`, separated by commas.
PLATFORMS ?= linux/$(shell go env GOARCH)
# More platforms for which `make release-files` builds only the binary, not an image, to run doctor at a terminal.
BINARIES ?=
# The URL of the directory with README.md, which `make release-files` puts before the runbook paths in alerts.
DOCS ?=
# How long `make fuzz` runs each fuzz target.
FUZZTIME ?= 30s
# The packages whose fuzz targets `make fuzz` runs.
FUZZPACKAGES ?= ./...
# The Go benchmarks that `make bench-go` and `make bench-compare` run, a regular expression.
BENCH ?= .
# Flags added to `make bench-go`: BENCHFLAGS='-count=10 -cpu=1'.
BENCHFLAGS ?=
# The commit that `make bench-compare` compares the working tree with.
BASE ?= HEAD
# The sizes of `make bench`, as nodes x pods per node; the last one takes 10 GiB of memory and 15 minutes.
SIZES ?= 100x70,1000x30,5000x30,15000x30
# Flags added to `make bench`: FLEETFLAGS='-churn 5 -faulty 10'; see hack/fleet/README.md.
FLEETFLAGS ?=
# How long `make soak` injects faults; start and end come on top.
SOAKTIME ?= 20m
# Flags added to `make soak`: SOAKFLAGS='-size 500x30 -faulty 30', the flags of `make bench`.
SOAKFLAGS ?=
# Flags of `make cluster`: CLUSTERFLAGS='-nodes 2 -version v1.36.3'; see docs/cluster.md.
CLUSTERFLAGS ?=
# Flags added to every `go test`: TESTFLAGS='-v -run TestX'.
TESTFLAGS ?=
# Set to -race for unit and integration tests with the race detector, as in CI. It needs a C compiler and, the first
# time, ten minutes to compile.
RACE ?=
# A directory with kube-apiserver and etcd; if empty, they are built once and cached in the user's home.
KUBE_ASSETS_DIR ?=
# The vulnerability database of `make vulncheck`: pinned (by hack/vulncheck/go.mod) or a URL (https://vuln.go.dev).
VULNDB ?= pinned

# ---- Fixed ----------------------------------------------------------------------------------------

BIN := bin/metrics-server
DIST := dist
# The page of `metrics-server ui`, with the files that are built from its sources and committed in dist.
PAGE := pkg/ui/page
# The absolute path, for recipes that run in other directories.
DISTDIR = $(abspath $(DIST))
# Each tool in hack/ is its own module, so that the product's go.mod stays small.
MODULES := . $(patsubst %/go.mod,%,$(wildcard hack/*/go.mod hack/*/*/go.mod))
# The modules with Go code; the four others only pin tools.
CODE_MODULES := $(filter-out hack/prometheus-adapter hack/tools hack/vpa hack/vulncheck,$(MODULES))
# The Go release that builds releases, whichever Go is installed; fetched if necessary.
TOOLCHAIN := $(shell awk '$$1 == "toolchain" {print $$2}' go.mod)
# One Go release for everything else. With GOTOOLCHAIN=auto, Go's default, each module would be built with the release
# that its go.mod asks for, and packages that modules share would be compiled once per release.
ifneq ($(filter auto,$(subst +, ,$(shell go env GOTOOLCHAIN))),)
export GOTOOLCHAIN := $(shell go env GOVERSION)+auto
endif
# Tools are pinned in hack/tools/go.mod and kept in Go's build cache. The path is absolute because
# the linter is also run inside the other modules.
TOOL := go tool -modfile=$(CURDIR)/hack/tools/go.mod
# Written by `make generate`.
GENERATED := $(wildcard pkg/api/openapi/zz_generated.openapi.go docs/flags.md docs/metrics.md docs/config.schema.json \
  deploy/prometheus/alerts.yaml deploy/prometheus/custom-metrics-alerts.yaml deploy/helm/metrics-server/files/*)
# Everything but the tests with the race detector is built in one way, that of the releases: Go then compiles each
# package once for the demonstration, the tests and the linters. A -tags on the command line replaces this one.
TAGS := grpcnotrace
GOFLAGS := $(filter-out -trimpath -tags=%,$(shell go env GOFLAGS))
export CGO_ENABLED := 0
export GOFLAGS += -trimpath -tags=$(TAGS)
# RACEGO is go, with the settings of the race detector (which needs cgo) if RACE is set. RACETEST runs tests with it,
# without vet, which `make verify` runs as part of the linter. The timeout is for machines with two cores that run other
# tests at the same time.
RACEGO = $(if $(RACE),CGO_ENABLED=1 GOFLAGS='$(filter-out -trimpath,$(GOFLAGS))') go
RACETEST = $(RACEGO) test $(RACE) -vet=off -timeout 45m
# The tests of test/integration that build programs of other projects, overload a server, or wait several times for
# what the server does once a minute.
LONGTESTS := ^(TestBackend|TestMoveFromPrometheusAdapter|TestChart|TestHelmReleases$\
  |TestHelmTakesOwnership|TestHelmKeepsAPIServices|TestLoad|TestClientsThatReadNothing$\
  |TestRotation|TestServingCertificate|TestManifestsGoOn|TestFallbackFromKubeletAccount)$$
# hack/ldflags.sh stamps the version instead of Go, so that a tarball without git metadata builds as well.
BUILDFLAGS = -trimpath -buildvcs=false -tags=grpcnotrace -ldflags "$$(hack/ldflags.sh)"

##@ Every day

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make TARGET [NAME=VALUE ...]"} \
	  /^##@ / {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z0-9-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Settings'
	@awk '/^# / {text = text substr($$0, 2)} \
	  /^[A-Z_]+ \?=/ {name = $$1; sub(/^[^=]*= */, ""); printf "  %-18s%s [%s]\n", name, text, $$0} \
	  !/^# / {text = ""} \
	  /^# ---- Fixed/ {exit}' $(firstword $(MAKEFILE_LIST))

.PHONY: build
build: ## Build the static binary bin/metrics-server.
	CGO_ENABLED=0 go build $(BUILDFLAGS) -o $(BIN) ./cmd/metrics-server

.PHONY: test
test: test-unit test-binary ## Run the tests of the server, except long ones and end-to-end tests.

.PHONY: test-long
test-long: test-hack test-integration-long test-backends ## Run the other tests, except end-to-end tests.

.PHONY: test-unit
test-unit: race-support ## Run the unit tests, which need only Go.
	$(RACETEST) $(TESTFLAGS) ./...

# All modules are tested, also after a failure. -count=1 because the tests in hack/ read files of other modules, which
# Go's test cache does not track.
.PHONY: test-hack
test-hack: ## Run the unit tests of the modules in hack/, which hold the chart and the tools.
	status=0; \
	for m in $(filter-out .,$(CODE_MODULES)); do \
	  (echo "== $$m"; cd $$m && go test -count=1 -vet=off -timeout 30m $(TESTFLAGS) ./...) || status=1; \
	done; \
	exit $$status

# Both mostly wait.
.PHONY: test-binary
test-binary: ## Run test-integration and test-faults side by side.
	$(MAKE) -j2 -O SIDE_BY_SIDE=1 test-integration test-faults

# -count=1 because Go's test cache does not track the binary that the tests build.
.PHONY: test-integration test-integration-long
test-integration: INTEGRATIONTESTS = -skip '$(LONGTESTS)'
test-integration-long: INTEGRATIONTESTS = -run '$(LONGTESTS)'
test-integration-long: victoria-metrics
test-integration: race-support ## Run the tests against a real kube-apiserver and etcd.
test-integration-long: race-support ## Run the long tests against a real kube-apiserver and etcd.
test-integration test-integration-long:
	dir='$(KUBE_ASSETS_DIR)'; \
	[[ -n $$dir ]] || dir=$$(cd hack/cluster && go run . assets -control-plane-only); \
	KUBE_ASSETS_DIR=$$dir $(RACETEST) -count=1 $(INTEGRATIONTESTS) $(TESTFLAGS) \
	  -tags integration,$(TAGS) ./test/integration/...

# -parallel 3 is one for each test of the package: all of them mostly wait.
.PHONY: test-faults
test-faults: ## Run the real binary against simulated kubelets that fail or lie; takes 4 to 5 minutes.
	cd hack/fleet && go test -count=1 -parallel 3 -tags faults $(TESTFLAGS) ./faults

# -parallel 64 is one for each test that may run beside others: all of them mostly wait.
.PHONY: test-backends
test-backends: build prometheus victoria-metrics ## Run the real binary with a real Prometheus and VictoriaMetrics.
	cd hack/backends && go test -count=1 -parallel 64 -tags backends $(TESTFLAGS) .

# -parallel 3 is a Chromium and a program for each: they mostly wait.
.PHONY: test-ui
test-ui: ## Run the real binary's page in headless Chromium, which must be installed.
	cd hack/ui && go test -count=1 -timeout 20m -parallel 3 -tags browser $(TESTFLAGS) .

.PHONY: e2e
e2e: e2e-main e2e-other e2e-install ## Run the end-to-end tests on real clusters; see test/e2e/README.md.

.PHONY: e2e-main
e2e-main: ## Run them on two nodes with verified kubelet certificates and aggregation to endpoints.
	test/e2e/run.sh $(TESTFLAGS)

.PHONY: e2e-other
e2e-other: ## Run some on a cluster with self-signed kubelets and aggregation to the Service.
	E2E_BACKENDS=none E2E_CLUSTERFLAGS='-kubelet-certs self-signed -aggregator-routing=false' \
	  test/e2e/run.sh -run '^(TestKubectl|TestDiscovery|TestAccess|TestAggregation|TestTruth|TestLifecycle)$$' $(TESTFLAGS)

.PHONY: e2e-install
e2e-install: ## Install and remove a release on an empty cluster, also over kubernetes-sigs/metrics-server.
	test/install/run.sh $(TESTFLAGS)

.PHONY: e2e-kind
e2e-kind: ## Run the end-to-end tests on kind, which needs Docker; see docs/kind.md.
	hack/kind/e2e.sh $(TESTFLAGS)

# Compiles ahead of time what takes long, so that .ci/run does not compile it while tests with deadlines run.
# `go list -export` compiles packages and their tests, but links none.
.PHONY: compile
compile: race-support ## Compile the programs of Kubernetes, and the packages and tests of the server.
	cd hack/cluster && go run . assets
	$(RACEGO) list $(RACE) -export -test -f '' -tags integration,$(TAGS) ./...

.PHONY: race-support
race-support:
	@[[ -z '$(RACE)' ]] || { \
	  cc=$$(go env CC); \
	  if ! command -v $${cc%% *} >/dev/null; then \
	    echo "The race detector needs a C compiler ($$cc): install gcc (Debian: apt-get install gcc libc6-dev)," >&2; \
	    echo "or leave RACE unset to test without the race detector" >&2; \
	    exit 1; \
	  fi; }

.PHONY: fmt
fmt: ## Format the Go code of every module.
	$(TOOL) golangci-lint fmt

.PHONY: generate
generate: ## Regenerate the generated files.
	go generate ./...
	go test ./pkg/app -run '^TestFlagsDoc$$' -update
	go test ./pkg/server -run '^TestMetricsDoc$$' -update
	cd hack/observability && go test -run '^TestPlainRules$$' -update .
	cd deploy/helm/metrics-server/files && cp ../../../prometheus/{alerts,custom-metrics-alerts}.yaml . && \
	  cp ../values.schema.json schema.json
	cd hack/schema && go test -run '^TestSchema$$' -update .

.PHONY: ui
ui: ## Build the page of `metrics-server ui`; needs Node.js 20 and npm.
	cd $(PAGE) && npm ci --silent && npm run --silent build

.PHONY: clean
clean: ## Remove what the other targets built in this tree; caches stay.
	rm -rf bin $(DIST) $(PAGE)/node_modules coverage.out

##@ Checks

.PHONY: verify
verify: verify-format verify-tidy verify-generated lint
verify: verify-scripts verify-repository verify-manifests vulncheck
verify: ## Run all checks: format, modules, generated files, linters, scripts, manifests, vulnerabilities.

# Its govet runs all analyzers of go vet and more, on the tests that need a build tag as well.
.PHONY: lint
lint: ## Run golangci-lint, which includes go vet, in every module.
	failed=0; \
	for m in $(CODE_MODULES); do \
	  echo "== $$m"; \
	  (cd $$m && $(TOOL) golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || failed=1; \
	done; \
	exit $$failed

.PHONY: verify-format
verify-format: ## Check that the code is formatted.
	@$(TOOL) golangci-lint fmt --diff || { echo 'Not formatted: run `make fmt`.' >&2; exit 1; }

.PHONY: verify-scripts
verify-scripts: ## Check the shell scripts and the GitHub workflows.
	@command -v shellcheck >/dev/null || { \
	  echo 'shellcheck is missing: install it (Debian: apt-get install shellcheck)' >&2; exit 1; }
	shellcheck .ci/run $$(git ls-files '*.sh')
	go tool -modfile=$(CURDIR)/hack/kind/go.mod actionlint

.PHONY: verify-tidy
verify-tidy: ## Check that every module's go.mod and go.sum are tidy.
	for m in $(MODULES); do (echo "== $$m"; cd $$m && go mod tidy -diff); done

.PHONY: verify-generated
verify-generated: ## Check that the generated files are up to date.
	@old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
	tar cf - $(GENERATED) | tar xf - -C "$$old"; \
	$(MAKE) --no-print-directory generate; \
	stale=0; \
	for f in $(GENERATED); do diff -u "$$old/$$f" $$f || stale=1; done; \
	[[ $$stale == 0 ]] || { echo 'Generated files were out of date and have been regenerated: commit them.' >&2; exit 1; }

.PHONY: verify-ui
verify-ui: ## Check the page's types and dist, and run its unit tests; needs Node.js 20 and npm.
	@cd $(PAGE); npm ci --silent; npm run --silent types; npm test --silent; \
	dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	node build.mjs "$$dir"; \
	diff -r "$$dir" dist || { echo '$(PAGE)/dist is out of date: run `make ui` and commit it.' >&2; exit 1; }

.PHONY: verify-repository
verify-repository: ## Check import direction, package docs, dependencies and their licences.
	go test -count=1 ./test/repository

.PHONY: verify-manifests
verify-manifests: ## Check that deploy/ renders, and to the right objects.
	cd hack/manifests && go test -count=1 .
	cd hack/helm && go test -count=1 .

# Scanning packages instead of symbols, govulncheck's default, is stricter, as a vulnerability counts even if the
# vulnerable function is never called, and takes seconds instead of minutes.
.PHONY: vulncheck
vulncheck: ## Check the packages linked into the binary, standard library included, for known vulnerabilities.
	db='$(VULNDB)'; \
	if [[ $$db == pinned ]]; then \
	  (cd hack/vulncheck && go mod download golang.org/x/vulndb); \
	  db=file://$$(cd hack/vulncheck && go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv; \
	fi; \
	govulncheck=$$(go tool -n -modfile=$(CURDIR)/hack/vulncheck/go.mod govulncheck); \
	GOTOOLCHAIN=$(TOOLCHAIN) CGO_ENABLED=0 GOOS=linux "$$govulncheck" \
	  -tags $(TAGS) -scan package -db "$$db" ./cmd/metrics-server

##@ Try it

.PHONY: demo
demo: ## Start a real cluster on this machine, deploy both servers, and show kubectl top and a custom metric.
	cd hack/cluster && go run . demo -kind

.PHONY: demo-down
demo-down: ## Stop the demo and remove everything it created.
	cd hack/cluster && go run . down

.PHONY: cluster
cluster: ## Start a cluster for your own use, configured by CLUSTERFLAGS.
	cd hack/cluster && go run . up $(CLUSTERFLAGS)

.PHONY: cluster-down
cluster-down: ## Stop the cluster and remove everything it created.
	cd hack/cluster && go run . down

##@ Release

# Releases are built with one Go release: with another one, the same commit gives other bytes.
image sbom release-files docker-test: export GOTOOLCHAIN = $(TOOLCHAIN)

.PHONY: image
image: ## Build the image and its SBOM without Docker, as an archive for `ctr images import`.
	mkdir -p $(DIST)
	cd hack/image && go run . -o $(DISTDIR)/metrics-server-image.tar -tag $(IMAGE) -platform $(PLATFORMS) -sbom $(DISTDIR)

.PHONY: docker-test
docker-test: ## Build the Dockerfile, compare the image with that of `make image`, run it; needs a Docker engine.
	cd hack/image && go test -count=1 -timeout 75m -tags docker -run '^TestDocker$$' $(TESTFLAGS) .

.PHONY: engine-test
engine-test: ## Test the scripts that start a Docker engine where none runs; needs root and a quiet machine.
	hack/docker/engine-test.sh

.PHONY: sbom
sbom: ## Write the SBOM of the server in the image, as CycloneDX.
	mkdir -p $(DIST)
	cd hack/image && go run . -platform $(PLATFORMS) -sbom $(DISTDIR)

.PHONY: manifests
manifests: ## Render deploy/ into one-file manifests in dist/.
	hack/manifests/render.sh $(DIST) $(IMAGE)

.PHONY: chart
chart: ## Package the Helm chart into dist/, with IMAGE and the version set.
	version=$$(hack/ldflags.sh | grep -o 'gitVersion=[^ ]*'); \
	cd hack/helm && go run . -o $(DISTDIR) -image $(IMAGE) -app-version "$${version#*=}" -docs '$(DOCS)'

.PHONY: release-files
release-files: manifests chart ## Build all release files: image, binaries, SBOMs, manifests, chart, alerts, checksums.
	cd hack/image && go run . -o $(DISTDIR)/metrics-server-image.tar -tag $(IMAGE) -platform $(PLATFORMS) \
	  -sbom $(DISTDIR) -binaries $(DISTDIR)
	$(if $(BINARIES),cd hack/image && go run . -platform $(BINARIES) -sbom $(DISTDIR) -binaries $(DISTDIR))
	runbooks='s|runbook_url: |&$(if $(DOCS),$(DOCS)/)|'; \
	for of in '' custom-metrics-; do \
	  sed "$$runbooks" deploy/prometheus/$${of}alerts.yaml >$(DIST)/$${of}alerts.yaml && \
	  sed "$$runbooks" deploy/kustomize/components/$${of}alerts/prometheusrule.yaml \
	    >$(DIST)/$${of}prometheusrule.yaml || exit 1; \
	done
	cp deploy/grafana/dashboard.json docs/config.schema.json $(DIST)
	cd $(DIST) && rm -f SHA256SUMS && sums=$$(sha256sum -- *) && echo "$$sums" >SHA256SUMS

.PHONY: push
push: ## Push the image that `make release-files` built, as IMAGE; prints its name with the digest.
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	tar xf $(DIST)/metrics-server-image.tar -C "$$dir"; \
	cd hack/image && go tool crane push "$$dir" $(IMAGE)

##@ Measure

.PHONY: bench
bench: build ## Simulate large clusters on this machine and measure the server with them.
	cd hack/fleet && go run . -size $(SIZES) $(FLEETFLAGS)

.PHONY: soak
soak: build ## Inject faults and churn for SOAKTIME, and check that answers stay right and memory does not grow.
	cd hack/fleet && go run . -soak -for $(SOAKTIME) -size 100x30 -churn 20 -faulty 5 $(SOAKFLAGS)

# Service discovery by the APIs of clouds, which is left out, is most of Prometheus.
.PHONY: prometheus
prometheus: ## Build bin/prometheus, of the version whose engine the server uses, to test and to compare with it.
	cd hack/observability && CGO_ENABLED=0 go build -trimpath -tags remove_all_sd,enable_kubernetes_sd,$(TAGS) \
	  -o '$(CURDIR)/bin/prometheus' github.com/prometheus/prometheus/cmd/prometheus

.PHONY: victoria-metrics
victoria-metrics: ## Build bin/victoria-metrics, to test with it.
	cd hack/backends && CGO_ENABLED=0 go build -trimpath -o '$(CURDIR)/bin/victoria-metrics' \
		github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics

.PHONY: bench-compare
bench-compare: ## Compare the Go benchmarks of the working tree with those of the commit BASE.
	BENCHFLAGS='$(BENCHFLAGS)' hack/bench-compare.sh $(BASE) '$(BENCH)'

.PHONY: bench-go
bench-go: ## Run the Go benchmarks.
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHFLAGS) ./...

.PHONY: cover
cover: ## Measure unit test coverage by function; writes coverage.out for `go tool cover -html`.
	go test -coverprofile=coverage.out -coverpkg=./pkg/... ./...
	go tool cover -func=coverage.out

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME.
	hack/fuzz.sh $(FUZZTIME) $(FUZZPACKAGES)
