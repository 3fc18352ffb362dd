#!/usr/bin/env bash
# Creates a cluster with kind, installs the server from deploy/, runs the end-to-end tests and always deletes the
# cluster. Arguments are passed to `go test`. Requires Go, and Docker or podman. Settings:
#   E2E_KIND_VERSION    tag of the image kindest/node, optionally with digest: v1.36.4@sha256:... (default: kind's);
#                       local: an image that hack/kind/node/build.sh makes, where Docker Hub cannot be reached
#   E2E_KIND_CLUSTER    name of the cluster
#   E2E_KIND            a kind binary to use instead of the version pinned in go.mod
#   E2E_KUBECTL         kubectls to test with, separated by ":" (default: the one in the node's image)
#   E2E_VPA=none        test without the VerticalPodAutoscaler's recommender
#   E2E_BACKENDS=none   test without the programs with the Prometheus API
#   E2E_KEEP=1          keep the cluster for inspection
#   KIND_EXPERIMENTAL_PROVIDER    docker or podman (default: the first that answers)
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${E2E_KIND_CLUSTER:-metrics-server-e2e}
server=localhost/metrics-server:e2e
workload=localhost/metrics-server-e2e:dev
recommender=localhost/metrics-server-e2e-vpa:dev

# fail says what is wrong and what to do.
fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

command -v go >/dev/null || fail "go is missing: install Go, of the version in go.mod or later"
provider=
for p in ${KIND_EXPERIMENTAL_PROVIDER:-docker podman}; do
  command -v "$p" >/dev/null || continue
  if said=$("$p" info 2>&1); then
    provider=$p
    break
  fi
  silent="$p is there, but does not answer: start it, and see to it that you may use it. It says: ${said##*$'\n'}"
done
missing="${KIND_EXPERIMENTAL_PROVIDER:-docker (or podman)} is missing: kind runs its nodes in containers."
[[ -n $provider ]] || fail "${silent:-$missing Install Docker and start it}"
[[ $provider == docker ]] || export KIND_EXPERIMENTAL_PROVIDER=$provider
kubectls=${E2E_KUBECTL:-}
if [[ -z $kubectls && $(uname -s) != Linux ]]; then
  command -v kubectl >/dev/null ||
    fail "kubectl is missing, and the node's runs on Linux only: install kubectl or set E2E_KUBECTL"
  kubectls=kubectl
fi

tmp=$(mktemp -d)
created=
end() {
  code=$?
  trap - EXIT
  if ((code != 0)) && [[ -n $created && -n $kubectls ]]; then
    echo "== what the server says" >&2
    "${kubectls%%:*}" get nodes,pods -A -o wide >&2 || true
    "${kubectls%%:*}" -n kube-system logs -l k8s-app=metrics-server --prefix --tail=100 >&2 || true
  fi
  if [[ -n ${E2E_KEEP:-} && -n $created ]]; then
    setting=${KIND_EXPERIMENTAL_PROVIDER:+KIND_EXPERIMENTAL_PROVIDER=$KIND_EXPERIMENTAL_PROVIDER }
    echo "The cluster keeps running: export KUBECONFIG=$KUBECONFIG" >&2
    echo "Delete it with: $setting$kind delete cluster --name $name" >&2
  else
    if [[ -n $created ]]; then "$kind" delete cluster --name "$name" || code=1; fi
    rm -rf "$tmp"
  fi
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

kind=${E2E_KIND:-$tmp/kind}
CGO_ENABLED=0 go build -trimpath -tags=grpcnotrace -o "$tmp/metrics-server" ./cmd/metrics-server
(cd hack/helm && CGO_ENABLED=0 go build -trimpath -o "$tmp/helm" helm.sh/helm/v4/cmd/helm)
[[ -n ${E2E_KIND:-} ]] || (cd hack/kind && CGO_ENABLED=0 go build -o "$kind" sigs.k8s.io/kind)
clusters=$("$kind" get clusters)
if [[ $'\n'$clusters$'\n' == *$'\n'"$name"$'\n'* ]]; then
  fail "there is a cluster $name: set E2E_KIND_CLUSTER to another name, or delete it:" \
    "(cd hack/kind && go tool kind delete cluster --name $name)"
fi
echo "== images"
(cd hack/image && go run . -o "$tmp/server.tar" -tag "$server")
CGO_ENABLED=0 GOOS=linux go build -trimpath -o "$tmp/workload" ./test/e2e/workload
(cd hack/image && go run . -o "$tmp/workload.tar" -tag "$workload" -binary "$tmp/workload")
images=(server workload)
# The VerticalPodAutoscaler's recommender. Its manifests are in its module.
vpa=${E2E_VPA:-}
if [[ $vpa != none ]]; then
  (cd hack/vpa && CGO_ENABLED=0 GOOS=linux go build -trimpath -o "$tmp/recommender" \
    k8s.io/autoscaler/vertical-pod-autoscaler/pkg/recommender)
  vpa=$(cd hack/vpa && go list -m -f '{{.Dir}}' k8s.io/autoscaler/vertical-pod-autoscaler)
  (cd hack/image && go run . -o "$tmp/recommender.tar" -tag "$recommender" -binary "$tmp/recommender")
  images+=(recommender)
fi
# Programs with the Prometheus API, from which the custom metrics server takes metrics.
if [[ ${E2E_BACKENDS:-} != none ]]; then
  GOOS=linux make --no-print-directory prometheus victoria-metrics
  for image in prometheus victoria-metrics; do
    (cd hack/image && go run . -o "$tmp/$image.tar" -tag "localhost/metrics-server-e2e-${image/-/}:dev" \
      -binary "../../bin/$image")
    images+=("$image")
  done
fi

export KUBECONFIG=$tmp/kubeconfig
options=(--name "$name" --config "$tmp/cluster.yaml" --wait 5m)
cp hack/kind/cluster.yaml "$tmp"
case ${E2E_KIND_VERSION:-} in
  '') ;;
  local)
    node=localhost/metrics-server-e2e-node:dev
    [[ $provider == docker ]] || fail "hack/kind/node builds its image with docker, not with $provider"
    hack/kind/node/build.sh "$node"
    cat hack/kind/node/cluster.yaml >>"$tmp/cluster.yaml"
    options+=(--image "$node")
    ;;
  *) options+=(--image "kindest/node:$E2E_KIND_VERSION") ;;
esac
created=1
"$kind" create cluster "${options[@]}"
if [[ -z $kubectls ]]; then
  "$provider" cp "$name-control-plane:/usr/bin/kubectl" "$tmp/kubectl"
  kubectls=$tmp/kubectl
fi
kubectl=${kubectls%%:*}
"$kubectl" version
for image in "${images[@]}"; do
  "$kind" load image-archive --name "$name" "$tmp/$image.tar"
done

# The kubelets sign their certificates themselves. Kustomize takes no absolute paths, so it has a copy beside it.
echo "== server"
mkdir "$tmp/installation"
cp -R deploy/kustomize "$tmp"
cat >"$tmp/installation/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../kustomize/overlays/insecure-kubelet-tls]
patches:
- patch: |-
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: metrics-server, namespace: kube-system}
    spec:
      template:
        spec:
          containers:
          - name: metrics-server
            image: $server
            imagePullPolicy: Never
END
"$kubectl" wait --for=condition=Ready nodes --all --timeout=3m
"$kubectl" apply -k "$tmp/installation"
"$kubectl" -n kube-system rollout status deployment/metrics-server --timeout=3m

# Only hack/cluster stops and starts nodes.
echo "== tests"
E2E_IMAGE=$workload E2E_KUBECTL=$kubectls E2E_NODE=none E2E_VPA=$vpa E2E_BINARY=$tmp/metrics-server E2E_HELM=$tmp/helm \
  go test -count=1 -tags e2e -parallel 48 -timeout 45m "$@" ./test/e2e
