#!/usr/bin/env bash
# Makes the base image that the Dockerfile builds in, golang:VERSION, from Debian's packages and the Go toolchain of
# the Go module proxy, for machines that do not reach Docker Hub. An image of that name is kept, unless it was made here
# for another Go module proxy or with other certificates. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=$(sed -n 's/^FROM .* \(golang:[0-9.]*\) AS build$/\1/p' Dockerfile)
[[ -n $image ]] || { echo "the Dockerfile has no base image golang:VERSION" >&2; exit 1; }
ca=/etc/ssl/certs/ca-certificates.crt
proxy=$(go env GOPROXY GOSUMDB | cat - "$ca" | sha256sum | cut -c1-16)
if made=$(docker image inspect -f '{{.Config.Labels.proxy}}' "$image" 2>/dev/null); then
  [[ $made != "$proxy" && $made != "<no value>" && -n $made ]] || exit 0
  docker image rm -f "$image" >/dev/null
fi
if ! command -v debootstrap >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends debootstrap
fi
tmp=$(mktemp -d)
# debootstrap mounts the kernel's file systems below its directory.
end() {
  awk -v dir="$tmp/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mounted; do
    umount "$mounted"
  done
  rm -rf --one-file-system "$tmp"
}
trap end EXIT
debootstrap --variant=minbase --include=ca-certificates bookworm "$tmp/root" >"$tmp/log" 2>&1 ||
  { tail -n 20 "$tmp/log" >&2; exit 1; }
goroot=$(GOTOOLCHAIN=go${image#golang:} go env GOROOT)
mkdir -p "$tmp/root/go" "$tmp/root/usr/local/go"
cp -R "$goroot/." "$tmp/root/usr/local/go"
# This machine may reach the Go module proxy only with certificates of its own, or under another name.
cp -L "$ca" "$tmp/root/etc/ssl/certs"
tar -C "$tmp/root" --one-file-system --exclude='./var/cache/apt/archives/*.deb' -c . |
  docker import -c 'ENV PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    -c "ENV GOPATH=/go GOTOOLCHAIN=local GOPROXY=$(go env GOPROXY) GOSUMDB=$(go env GOSUMDB)" \
    -c "LABEL proxy=$proxy" -c 'WORKDIR /go' - "$image"
