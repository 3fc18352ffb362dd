#!/usr/bin/env bash
# Renders deploy/kustomize into the one-file manifests of a release, with the server's image replaced.
# Usage: hack/manifests/render.sh DIRECTORY NAME:TAG
set -euo pipefail
[[ $# == 2 && $2 =~ ^(.+):([^:/]+)$ ]] || {
  echo 'render.sh: want the directory to write to, and the image as NAME:TAG' >&2
  exit 2
}
name=${BASH_REMATCH[1]} tag=${BASH_REMATCH[2]}
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")"
dir=$(mktemp -d .render.XXXXXX) # in the repository, because resources are named by relative paths
trap 'rm -rf "$dir"' EXIT
while read -r manifest kustomization; do
  cat >"$dir/kustomization.yaml" <<END
resources: [../../../deploy/kustomize/$kustomization]
images: [{name: localhost/metrics-server, newName: "$name", newTag: "$tag"}]
END
  go tool kustomize build "$dir" >"$out/$manifest"
done <<END
components.yaml base
components-insecure-kubelet-tls.yaml overlays/insecure-kubelet-tls
high-availability.yaml overlays/high-availability
custom-metrics.yaml custom-metrics
custom-metrics-high-availability.yaml overlays/custom-metrics-high-availability
custom-metrics-external.yaml overlays/custom-metrics-external
END
