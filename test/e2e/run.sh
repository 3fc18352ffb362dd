#!/usr/bin/env bash
# Starts a cluster with hack/cluster, installs the server as `make demo` does, runs the end-to-end tests and always
# stops the cluster. Arguments are passed to `go test`. Settings are those of cluster.sh, and:
#   E2E_OLD_KUBECTL     version of an older kubectl to test with; it is built once. Empty: without
#   E2E_BACKENDS=none   do not build the programs with the Prometheus API, nor test with them
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
image=localhost/metrics-server-e2e:dev
suite=e2e
# shellcheck source=test/e2e/cluster.sh
. test/e2e/cluster.sh

# shellcheck disable=SC2086 # flags are words
cluster demo -state "$state" $clusterflags
kubectl=$(cluster assets -only kubectl)/kubectl
kubectls=$kubectl
if [[ -n ${E2E_OLD_KUBECTL=v1.34.4} ]]; then
  kubectls+=:$(cluster assets -only kubectl -version "$E2E_OLD_KUBECTL")/kubectl
fi

CGO_ENABLED=0 go build -trimpath -o "$tmp/workload" ./test/e2e/workload
pack "$tmp/workload.tar" "$image" "$tmp/workload"
# The VerticalPodAutoscaler's recommender. Its manifests are in its module.
(cd hack/vpa && CGO_ENABLED=0 go build -trimpath -o "$tmp/recommender" \
  k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender)
vpa=$(cd hack/vpa && go list -m -f '{{.Dir}}' k8s.io/autoscaler/vertical-pod-autoscaler)
pack "$tmp/vpa.tar" localhost/metrics-server-e2e-vpa:dev "$tmp/recommender"
cluster load -state "$state" "$tmp/workload.tar" "$tmp/vpa.tar"
# Programs with the Prometheus API, from which the custom metrics server takes metrics.
if [[ ${E2E_BACKENDS:-} != none ]]; then
  make --no-print-directory prometheus victoria-metrics
  pack "$tmp/prometheus.tar" localhost/metrics-server-e2e-prometheus:dev "$root/bin/prometheus"
  pack "$tmp/victoriametrics.tar" localhost/metrics-server-e2e-victoriametrics:dev "$root/bin/victoria-metrics"
  cluster load -state "$state" "$tmp/prometheus.tar" "$tmp/victoriametrics.tar"
fi

# The command by which the tests stop and start nodes: ACTION NAME.
cat >"$tmp/node" <<END
#!/bin/sh
cd "$root/hack/cluster" && action=\$1 && shift && exec "$tmp/cluster" node "\$action" -state "$state" "\$@"
END
chmod +x "$tmp/node"

# Programs besides kubectl that the commands in the documents run. The server in the cluster runs from the image.
(cd hack/helm && CGO_ENABLED=0 go build -trimpath -o "$tmp/helm" helm.sh/helm/v4/cmd/helm)
CGO_ENABLED=0 go build -trimpath -tags=grpcnotrace -o "$tmp/metrics-server" ./cmd/metrics-server

# Remove the workloads of the demonstration. The tests install the custom metrics server themselves.
"$kubectl" delete namespace demo --ignore-not-found
"$kubectl" delete -k deploy/kustomize/custom-metrics --ignore-not-found
E2E_IMAGE=$image E2E_KUBECTL=$kubectls E2E_NODE=$tmp/node E2E_VPA=$vpa \
  E2E_BINARY=$tmp/metrics-server E2E_HELM=$tmp/helm \
  go test -count=1 -tags e2e -parallel 48 -timeout 45m "$@" ./test/e2e
