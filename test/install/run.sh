#!/usr/bin/env bash
# Starts an empty cluster with hack/cluster, builds the files of a release, and runs the tests that install it, upgrade
# to it and remove it. Always stops the cluster. Arguments are passed to `go test`. Settings are those of
# test/e2e/cluster.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=localhost/metrics-server-install:dev
suite=install
# shellcheck source=test/e2e/cluster.sh
. test/e2e/cluster.sh

# shellcheck disable=SC2086 # flags are words
cluster up -state "$state" $clusterflags
kubectl=$(cluster assets -only kubectl)/kubectl

# Built with the installed Go, like the other suites; the Go version of releases does not matter here.
make --no-print-directory image manifests chart IMAGE="$image" DIST="$tmp/dist" TOOLCHAIN=local
(cd hack/helm && CGO_ENABLED=0 go build -trimpath -o "$tmp/helm" helm.sh/helm/v4/cmd/helm)
# The incumbent, under the image name in its manifest and chart.
(cd hack/incumbent && CGO_ENABLED=0 go build -trimpath -o "$tmp/incumbent" \
  sigs.k8s.io/metrics-server/cmd/metrics-server)
incumbent=$(cd hack/incumbent && go list -m -f '{{.Dir}}' sigs.k8s.io/metrics-server)
pack "$tmp/incumbent.tar" "registry.k8s.io/metrics-server/metrics-server:${incumbent##*@}" \
  "metrics-server=$tmp/incumbent"
cluster load -state "$state" "$tmp/dist/metrics-server-image.tar" "$tmp/incumbent.tar"

# The doctor, for a terminal. The server in the cluster runs from the image.
CGO_ENABLED=0 go build -trimpath -tags=grpcnotrace -o "$tmp/metrics-server" ./cmd/metrics-server

# Keep Helm out of the home directory.
export HELM_CACHE_HOME=$tmp/helm-home HELM_CONFIG_HOME=$tmp/helm-home HELM_DATA_HOME=$tmp/helm-home
INSTALL_KUBECTL=$kubectl INSTALL_HELM=$tmp/helm INSTALL_DIST=$tmp/dist INSTALL_IMAGE=$image \
  INSTALL_INCUMBENT=$incumbent INSTALL_BINARY=$tmp/metrics-server \
  go test -count=1 -tags e2e -timeout 45m "$@" ./test/install
