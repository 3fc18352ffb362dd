#!/usr/bin/env bash
# Brings up an empty cluster of its own with hack/cluster, makes what a release has, and runs the tests that install it, upgrade to
# it and remove it. Ends the cluster, whatever happens. Arguments go to `go test`. Settings are those of test/e2e/cluster.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=localhost/metrics-server-install:dev
suite=install
# shellcheck source=test/e2e/cluster.sh
. test/e2e/cluster.sh

# shellcheck disable=SC2086 # flags are words
cluster up -state "$state" $clusterflags
kubectl=$(cluster assets -only kubectl)/kubectl

# By the Go that is here, as the other suites do: which one releases are built with does not matter.
make --no-print-directory image manifests chart IMAGE="$image" DIST="$tmp/dist" TOOLCHAIN=local
(cd hack/helm && CGO_ENABLED=0 go build -trimpath -o "$tmp/helm" helm.sh/helm/v4/cmd/helm)
# The incumbent, under the name that its manifest and its chart know it by.
(cd hack/incumbent && CGO_ENABLED=0 go build -trimpath -o "$tmp/incumbent" sigs.k8s.io/metrics-server/cmd/metrics-server)
incumbent=$(cd hack/incumbent && go list -m -f '{{.Dir}}' sigs.k8s.io/metrics-server)
pack "$tmp/incumbent.tar" "registry.k8s.io/metrics-server/metrics-server:${incumbent##*@}" "metrics-server=$tmp/incumbent"
cluster load -state "$state" "$tmp/dist/metrics-server-image.tar" "$tmp/incumbent.tar"

# The doctor at a terminal; the server is that of the image.
CGO_ENABLED=0 go build -trimpath -tags=grpcnotrace -o "$tmp/metrics-server" ./cmd/metrics-server

# Helm keeps nothing at home.
export HELM_CACHE_HOME=$tmp/helm-home HELM_CONFIG_HOME=$tmp/helm-home HELM_DATA_HOME=$tmp/helm-home
INSTALL_KUBECTL=$kubectl INSTALL_HELM=$tmp/helm INSTALL_DIST=$tmp/dist INSTALL_IMAGE=$image INSTALL_INCUMBENT=$incumbent \
  INSTALL_BINARY=$tmp/metrics-server go test -count=1 -tags e2e -timeout 30m "$@" ./test/install
