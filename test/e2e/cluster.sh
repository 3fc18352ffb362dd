# shellcheck shell=bash disable=SC2034 # what is set here is used by them
# Shared by the test suites that run on clusters of hack/cluster. Their run.sh sources it at the root of the repository,
# with `suite` set to the name of the cluster's directory. It builds hack/cluster, and stops the cluster when the script
# exits, whatever the reason.
# Settings:
#   E2E_STATE           directory of the cluster
#   E2E_CLUSTERFLAGS    flags of hack/cluster's `up`
#   E2E_KEEP=1          keep the cluster for inspection; run the script again to test on it
state=${E2E_STATE:-${METRICS_SERVER_DEV_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/metrics-server-dev}/${suite:?}}
clusterflags=${E2E_CLUSTERFLAGS--nodes 2}
export KUBECONFIG=$state/kubeconfig

tmp=$(mktemp -d)
# In its module's directory, so that it finds the repository.
cluster() { (cd hack/cluster && "$tmp/cluster" "$@"); }
# pack builds an image from a static binary: pack ARCHIVE TAG BINARY.
pack() { (cd hack/image && go run . -o "$1" -tag "$2" -binary "$3"); }
end() {
  code=$?
  trap - EXIT
  if ((code != 0)) && [[ -e $KUBECONFIG && -n ${kubectl:-} ]]; then
    echo "== log of the server" >&2
    "$kubectl" -n kube-system get pods -o wide >&2 || true
    "$kubectl" -n kube-system logs -l k8s-app=metrics-server --prefix --tail=40 >&2 || true
  fi
  if [[ -n ${E2E_KEEP:-} ]]; then
    echo "The cluster goes on: export KUBECONFIG=$KUBECONFIG" >&2
    echo "End it with: cd hack/cluster && go run . down -state $state" >&2
  else
    cluster down -state "$state" || code=1
    rm -rf "$tmp"
  fi
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

(cd hack/cluster && CGO_ENABLED=0 go build -o "$tmp/cluster" .)
