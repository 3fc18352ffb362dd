# Run `make help` for what there is to make. Needs Go 1.26, bash and git; `make test` also needs gcc.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# go uses every core within one target already: targets side by side would only fight over them.
.NOTPARALLEL:

# ---- What can be set on the command line ----------------------------------------------------------

# The image's name and tag, in the archive and in the rendered manifests.
IMAGE ?= localhost/metrics-server:dev
# The platforms of `make image`, separated by commas.
PLATFORMS ?= linux/$(shell go env GOARCH)
# Platforms beside these of which `make release-files` leaves the binary and no image: doctor runs at a terminal.
BINARIES ?=
# What `make release-files` puts before the runbooks in the alerts, the place of README.md.
DOCS ?=
# How long `make fuzz` gives to each fuzz target.
FUZZTIME ?= 30s
# The packages whose fuzz targets it runs.
FUZZPACKAGES ?= ./...
# The Go benchmarks that `make bench-go` and `make bench-compare` run, a regular expression.
BENCH ?= .
# Flags added to `make bench-go`: BENCHFLAGS='-count=10 -cpu=1'.
BENCHFLAGS ?=
# The commit that `make bench-compare` compares this tree with.
BASE ?= HEAD
# The sizes of `make bench`, nodes x pods of each; the last one takes 10 GiB and a quarter of an hour.
SIZES ?= 100x70,1000x30,5000x30,15000x30
# Flags added to `make bench`: FLEETFLAGS='-churn 5 -faulty 10'; hack/fleet/README.md has them all.
FLEETFLAGS ?=
# How long `make soak` lets things go wrong; start and end come on top.
SOAKTIME ?= 20m
# Flags added to `make soak`: SOAKFLAGS='-size 500x30 -faulty 30', as those of `make bench`.
SOAKFLAGS ?=
# Flags of `make cluster`: CLUSTERFLAGS='-nodes 2 -version v1.36.3'; docs/cluster.md has them all.
CLUSTERFLAGS ?=
# Flags added to every `go test`: TESTFLAGS='-v -run TestX'.
TESTFLAGS ?=
# Empty to test without the race detector where there is no C compiler.
RACE ?= -race
# A directory with kube-apiserver and etcd; if empty, they are built once and kept in the user's cache.
KUBE_ASSETS_DIR ?=
# What `make vulncheck` looks vulnerabilities up in: pinned is what hack/vulncheck/go.mod has, or a URL, https://vuln.go.dev.
VULNDB ?= pinned

# ---- Fixed ----------------------------------------------------------------------------------------

BIN := bin/metrics-server
DIST := dist
# Recipes that run elsewhere need it whole.
DISTDIR = $(abspath $(DIST))
# Each hack/ tool is a module of its own, so that the product's go.mod stays small.
MODULES := . $(patsubst %/go.mod,%,$(wildcard hack/*/go.mod hack/*/*/go.mod))
# These have no code of their own, and go vet takes that for an error.
CODE_MODULES := $(filter-out hack/incumbent hack/tools hack/vpa hack/vulncheck,$(MODULES))
# The release of Go that releases are built with, whichever is installed: it is fetched if need be.
TOOLCHAIN := $(shell awk '$$1 == "toolchain" {print $$2}' go.mod)
# Tools are pinned in hack/tools/go.mod and kept in Go's build cache. The path is absolute because
# the linter is also run inside the other modules.
TOOL := go tool -modfile=$(CURDIR)/hack/tools/go.mod
# Written by `make generate`.
GENERATED := $(wildcard pkg/api/openapi/zz_generated.openapi.go docs/flags.md docs/metrics.md deploy/prometheus/alerts.yaml)
# The stamp is our own (hack/ldflags.sh), so that a tarball without git metadata builds as well.
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
test: test-unit test-integration test-faults ## Run every test: unit, fuzz seeds, integration, with the race detector, and faults.

# -count=1, because the tests in hack/ read files of other modules, which Go's cache of test results does
# not watch.
.PHONY: test-unit
test-unit: race-support ## Run the tests that need nothing but Go.
	go test $(RACE) $(TESTFLAGS) ./...
	for m in $(filter-out .,$(CODE_MODULES)); do (echo "== $$m"; cd $$m && go test -count=1 $(TESTFLAGS) ./...); done

# -count=1, because Go's cache of test results does not watch the binary that they build.
.PHONY: test-integration
test-integration: race-support ## Run the tests against a real kube-apiserver and etcd.
	dir='$(KUBE_ASSETS_DIR)'; \
	[[ -n $$dir ]] || dir=$$(cd hack/cluster && go run . assets -control-plane-only); \
	KUBE_ASSETS_DIR=$$dir go test $(RACE) -count=1 $(TESTFLAGS) -tags integration ./test/integration/...

.PHONY: test-faults
test-faults: ## Run the real binary in a fleet of kubelets that fail and lie, for four minutes.
	cd hack/fleet && go test -count=1 -tags faults $(TESTFLAGS) ./faults

.PHONY: e2e
e2e: e2e-main e2e-other e2e-install ## Run the end-to-end tests on real clusters of their own; test/e2e/README.md says more.

.PHONY: e2e-main
e2e-main: ## All of them on two nodes: kubelets whose certificates are verified, aggregation to endpoints.
	test/e2e/run.sh $(TESTFLAGS)

.PHONY: e2e-other
e2e-other: ## Some on a cluster of the other choices: self-signed kubelets, HTTP/2, aggregation to the service.
	E2E_CLUSTERFLAGS='-kubelet-certs self-signed -kubelet-http2 -aggregator-routing=false' \
	  test/e2e/run.sh -run '^(TestKubectl|TestDiscovery|TestAccess|TestAggregation|TestTruth|TestLifecycle)$$' $(TESTFLAGS)

.PHONY: e2e-install
e2e-install: ## Install what a release has on an empty cluster, also in the place of the incumbent, and remove it.
	test/install/run.sh $(TESTFLAGS)

.PHONY: e2e-kind
e2e-kind: ## Run the end-to-end tests on a cluster of kind's, which needs Docker; docs/kind.md says more.
	hack/kind/e2e.sh $(TESTFLAGS)

.PHONY: race-support
race-support:
	@[[ -z '$(RACE)' ]] || { \
	  cc=$$(go env CC); \
	  if [[ $$(go env CGO_ENABLED) != 1 ]] || ! command -v $${cc%% *} >/dev/null; then \
	    echo "The race detector needs cgo and a C compiler ($$cc): install gcc (Debian: apt-get install gcc libc6-dev)" >&2; \
	    echo "and leave CGO_ENABLED unset, or test without it: make test RACE=" >&2; \
	    exit 1; \
	  fi; }

.PHONY: fmt
fmt: ## Format the Go code of every module.
	$(TOOL) golangci-lint fmt

.PHONY: generate
generate: ## Write the generated files anew.
	go generate ./...
	go test ./pkg/app -run '^TestFlagsDoc$$' -update
	go test ./pkg/server -run '^TestMetricsDoc$$' -update
	cd hack/observability && go test -run '^TestPlainRules$$' -update .

.PHONY: clean
clean: ## Remove what the other targets made in this tree (caches are left).
	rm -rf bin $(DIST) coverage.out

##@ Checks

.PHONY: verify
verify: verify-format verify-tidy verify-generated verify-vet lint verify-scripts verify-repository verify-manifests vulncheck ## Run every check that is not a test of behaviour.

.PHONY: lint
lint: ## Run golangci-lint in every module.
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
	@command -v shellcheck >/dev/null || { echo 'shellcheck is missing: install it (Debian: apt-get install shellcheck)' >&2; exit 1; }
	shellcheck .ci/run $$(git ls-files '*.sh')
	go tool -modfile=$(CURDIR)/hack/kind/go.mod actionlint

.PHONY: verify-vet
verify-vet: ## Run go vet in every module, and on the tests that have a build tag.
	for m in $(CODE_MODULES); do (echo "== $$m"; cd $$m && go vet ./...); done
	go vet -tags integration,e2e ./test/...
	cd hack/fleet && go vet -tags faults ./faults

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
	[[ $$stale == 0 ]] || { echo 'Generated files were out of date and are written anew: commit them.' >&2; exit 1; }

.PHONY: verify-repository
verify-repository: ## Check import direction, package docs, dependencies and their licences.
	go test -count=1 ./test/repository

.PHONY: verify-manifests
verify-manifests: ## Check that deploy/ renders, and what it renders to.
	cd hack/manifests && go test -count=1 .
	cd hack/helm && go test -count=1 .

# Of packages and not of symbols, which govulncheck would do by itself: that is stricter, for a vulnerability counts
# even if what it is in is never called, and takes seconds instead of minutes.
.PHONY: vulncheck
vulncheck: ## Check what the binary is linked from, Go's own library included, for known vulnerabilities (VULNDB).
	db='$(VULNDB)'; \
	if [[ $$db == pinned ]]; then \
	  (cd hack/vulncheck && go mod download golang.org/x/vulndb); \
	  db=file://$$(cd hack/vulncheck && go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv; \
	fi; \
	govulncheck=$$(go tool -n -modfile=$(CURDIR)/hack/vulncheck/go.mod govulncheck); \
	GOTOOLCHAIN=$(TOOLCHAIN) CGO_ENABLED=0 GOOS=linux "$$govulncheck" -tags grpcnotrace -scan package -db "$$db" ./cmd/metrics-server

##@ Try it

.PHONY: demo
demo: ## Bring up a real cluster on this machine, deploy, and show kubectl top.
	cd hack/cluster && go run . demo

.PHONY: demo-down
demo-down: ## End the demo and remove all it left.
	cd hack/cluster && go run . down

.PHONY: cluster
cluster: ## Bring up a cluster for your own use; set what kind with CLUSTERFLAGS.
	cd hack/cluster && go run . up $(CLUSTERFLAGS)

.PHONY: cluster-down
cluster-down: ## End the cluster and remove all it left.
	cd hack/cluster && go run . down

##@ Release

# One release of Go for what is released: with another one, the same commit gives other bytes.
image sbom release-files: export GOTOOLCHAIN = $(TOOLCHAIN)

.PHONY: image
image: ## Build the image without Docker, as an archive that `ctr images import` takes, and its SBOM.
	mkdir -p $(DIST)
	cd hack/image && go run . -o $(DISTDIR)/metrics-server-image.tar -tag $(IMAGE) -platform $(PLATFORMS) -sbom $(DISTDIR)

.PHONY: sbom
sbom: ## Write what the server in the image is made of, as CycloneDX.
	mkdir -p $(DIST)
	cd hack/image && go run . -platform $(PLATFORMS) -sbom $(DISTDIR)

.PHONY: manifests
manifests: ## Render deploy/ into one-file manifests in dist/.
	cd hack/manifests && go run . -o $(DISTDIR) -image $(IMAGE)

.PHONY: chart
chart: ## Package the Helm chart into dist/, with IMAGE and the version in it.
	version=$$(hack/ldflags.sh | grep -o 'gitVersion=[^ ]*'); \
	cd hack/helm && go run . package -o $(DISTDIR) -image $(IMAGE) -app-version "$${version#*=}" -docs '$(DOCS)'

.PHONY: release-files
release-files: manifests chart ## Make all files of a release: image, binaries, SBOMs, manifests, chart, alerts, dashboard, checksums.
	cd hack/image && go run . -o $(DISTDIR)/metrics-server-image.tar -tag $(IMAGE) -platform $(PLATFORMS) -sbom $(DISTDIR) -binaries $(DISTDIR)
	$(if $(BINARIES),cd hack/image && go run . -platform $(BINARIES) -sbom $(DISTDIR) -binaries $(DISTDIR))
	for f in deploy/prometheus/alerts.yaml deploy/kustomize/components/alerts/prometheusrule.yaml; do \
	  sed 's|runbook_url: |&$(if $(DOCS),$(DOCS)/)|' $$f >$(DIST)/$${f##*/}; \
	done
	cp deploy/grafana/dashboard.json $(DIST)
	cd $(DIST) && rm -f SHA256SUMS && sums=$$(sha256sum -- *) && echo "$$sums" >SHA256SUMS

.PHONY: push
push: ## Push the image that `make release-files` made, as IMAGE; prints its name by digest.
	@cd hack/image && go run . -push $(DISTDIR)/metrics-server-image.tar -tag $(IMAGE)

##@ Measure

.PHONY: bench
bench: build ## Simulate large clusters on this machine and measure the server on them.
	cd hack/fleet && go run . -sizes $(SIZES) $(FLEETFLAGS)

.PHONY: soak
soak: build ## Let kubelets fail and pods and nodes come and go for SOAKTIME: all must stay right and nothing may grow.
	cd hack/fleet && go run . -soak -for $(SOAKTIME) -size 100x30 -churn 20 -faulty 5 $(SOAKFLAGS)

.PHONY: bench-compare
bench-compare: ## Compare the Go benchmarks of this tree with those of the commit BASE, by benchstat.
	BENCHFLAGS='$(BENCHFLAGS)' hack/bench-compare.sh $(BASE) '$(BENCH)'

.PHONY: bench-go
bench-go: ## Run the Go benchmarks.
	go test -run '^$$' -bench '$(BENCH)' -benchmem $(BENCHFLAGS) ./...

.PHONY: cover
cover: ## Measure the unit tests' coverage: by function, and coverage.out for `go tool cover -html`.
	go test -coverprofile=coverage.out -coverpkg=./pkg/... ./...
	go tool cover -func=coverage.out

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME.
	hack/fuzz.sh $(FUZZTIME) $(FUZZPACKAGES)
