#!/usr/bin/env bash
# Brings up a cluster of its own with hack/cluster, installs the server as `make demo` does, runs the end-to-end
# tests and ends the cluster, whatever happens. Arguments go to `go test`. Settings:
#   E2E_STATE           directory of the cluster
#   E2E_CLUSTERFLAGS    flags of hack/cluster's `up`
#   E2E_OLD_KUBECTL     version of an older kubectl to test with; it is built once. Empty: without
#   E2E_KEEP=1          leave the cluster for a look; run this again to test on it
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
state=${E2E_STATE:-${METRICS_SERVER_DEV_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/metrics-server-dev}/e2e}
clusterflags=${E2E_CLUSTERFLAGS--nodes 2}
image=localhost/metrics-server-e2e:dev

tmp=$(mktemp -d)
# In its module's directory, so that it finds the repository.
cluster() { (cd hack/cluster && "$tmp/cluster" "$@"); }
end() {
  code=$?
  trap - EXIT
  export KUBECONFIG=$state/kubeconfig
  if ((code != 0)) && [[ -e $KUBECONFIG && -n ${kubectl:-} ]]; then
    echo "== what the server says" >&2
    "$kubectl" -n kube-system get pods -o wide >&2 || true
    "$kubectl" -n kube-system logs -l k8s-app=metrics-server --prefix --tail=40 >&2 || true
  fi
  if [[ -n ${E2E_KEEP:-} ]]; then
    echo "The cluster goes on: export KUBECONFIG=$KUBECONFIG" >&2
  else
    cluster down -state "$state" || code=1
    rm -rf "$tmp"
  fi
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

(cd hack/cluster && CGO_ENABLED=0 go build -o "$tmp/cluster" .)
# shellcheck disable=SC2086 # flags are words
cluster demo -state "$state" $clusterflags
kubectl=$(cluster assets -only kubectl)/kubectl
kubectls=$kubectl
if [[ -n ${E2E_OLD_KUBECTL=v1.34.4} ]]; then
  kubectls+=:$(cluster assets -only kubectl -version "$E2E_OLD_KUBECTL")/kubectl
fi

CGO_ENABLED=0 go build -trimpath -o "$tmp/workload" ./test/e2e/workload
(cd hack/image && go run . -o "$tmp/workload.tar" -tag "$image" -binary "$tmp/workload")
# The VerticalPodAutoscaler's recommender. Its manifests are in its module.
(cd hack/vpa && CGO_ENABLED=0 go build -trimpath -o "$tmp/recommender" k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender)
vpa=$(cd hack/vpa && go list -m -f '{{.Dir}}' k8s.io/autoscaler/vertical-pod-autoscaler)
(cd hack/image && go run . -o "$tmp/vpa.tar" -tag localhost/metrics-server-e2e-vpa:dev -binary "$tmp/recommender")
cluster load -state "$state" "$tmp/workload.tar" "$tmp/vpa.tar"

# How the tests stop and start nodes: ACTION NAME.
cat >"$tmp/node" <<END
#!/bin/sh
cd "$root/hack/cluster" && action=\$1 && shift && exec "$tmp/cluster" node "\$action" -state "$state" "\$@"
END
chmod +x "$tmp/node"

# What the documents' commands run, beside kubectl. The server is that of the image.
(cd hack/helm && CGO_ENABLED=0 go build -trimpath -o "$tmp/helm" helm.sh/helm/v4/cmd/helm)
CGO_ENABLED=0 go build -trimpath -o "$tmp/metrics-server" ./cmd/metrics-server

export KUBECONFIG=$state/kubeconfig
# The demonstration's own workloads have had their day.
"$kubectl" delete namespace demo --ignore-not-found
E2E_IMAGE=$image E2E_KUBECTL=$kubectls E2E_NODE=$tmp/node E2E_VPA=$vpa E2E_BINARY=$tmp/metrics-server E2E_HELM=$tmp/helm \
  go test -count=1 -tags e2e -parallel 32 -timeout 30m "$@" ./test/e2e
