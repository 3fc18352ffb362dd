#!/usr/bin/env bash
# Builds a node image for kind without any registry but Debian's packages and the Go module proxy: kind's own files for
# its base image, Debian 12 with systemd, containerd and CNI plugins, and the Kubernetes programs that hack/cluster
# builds. Usage: build.sh IMAGE. Needs Linux, root and a Docker engine; docs/kind.md says what differs from kind's own.
# An IMAGE that was made from the same sources is kept.
set -euo pipefail
cd "$(dirname "$0")/../../.."
[[ $# == 1 ]] || { echo "usage: $0 IMAGE" >&2; exit 2; }
image=$1
here=hack/kind/node
docker version >/dev/null || { echo "no Docker engine answers" >&2; exit 1; }
sources=$(cat "$here"/* hack/docker/runc.sh hack/cluster/go.mod hack/kind/go.mod | sha256sum | cut -c1-16)
if made=$(docker image inspect -f '{{.Config.Labels.sources}}' "$image" 2>/dev/null); then
  [[ $made != "$sources" ]] || exit 0
  docker image rm -f "$image" >/dev/null
fi
if ! command -v debootstrap >/dev/null; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends debootstrap
fi

tmp=$(mktemp -d)
container=
# debootstrap mounts the kernel's file systems below its directory.
end() {
  [[ -z $container ]] || docker rm -fv "$container" >/dev/null
  awk -v dir="$tmp/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mounted; do
    umount "$mounted"
  done
  rm -rf --one-file-system "$tmp"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

programs=(etcd kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler)
bin=$(cd hack/cluster && go run . assets -only "$(IFS=,; echo "${programs[*]}")")
(cd hack/kind && go mod download sigs.k8s.io/kind)
files=$(cd hack/kind && go list -m -f '{{.Dir}}' sigs.k8s.io/kind)/images/base/files

echo "== Debian"
root=$tmp/root
packages=systemd,systemd-sysv,conntrack,iptables,nftables,iproute2,ethtool,util-linux,mount,kmod,procps,jq
packages+=,ca-certificates,e2fsprogs,busybox-static,containerd,runc,containernetworking-plugins
debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$tmp/log" 2>&1 ||
  { tail -n 20 "$tmp/log" >&2; exit 1; }
rm -f "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*_*

echo "== node"
cp -R "$files/." "$root"
chmod -R u+w "$root/etc" "$root/kind" "$root/usr/local/bin"
chmod 755 "$root"/kind/bin/*.sh "$root"/usr/local/bin/*
# As the Dockerfile of kind's base image does it.
rm -f "$root"/lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
  "$root"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/* "$root"/etc/systemd/system/*.wants/* \
  "$root"/lib/systemd/system/sockets.target.wants/*{udev,initctl}*
echo ReadKMsg=no >>"$root/etc/systemd/journald.conf"
chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
chroot "$root" systemctl mask systemd-binfmt.service
mkdir -p "$root/etc/kubernetes/manifests" "$root/opt/cni/bin" "$root/kind/manifests"
chroot "$root" ctr oci spec |
  jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' \
    >"$root/etc/containerd/cri-base.json"
# Where Debian has these programs, and where kind's files look for them.
ln -s /usr/bin/containerd /usr/bin/ctr "$root/usr/local/bin"
cp "$root"/usr/lib/cni/{host-local,loopback,portmap,ptp} "$root/opt/cni/bin"
install -m 755 hack/docker/runc.sh "$root/kind/bin/runc.sh"
install -m 755 "$here/pod-network.sh" "$root/kind/bin"
cp "$here/pod-network.yaml" "$root/kind/manifests/default-cni.yaml"
# Without CAP_SYS_RESOURCE a container's oom_score_adj cannot be lowered.
sed -i -e 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' \
  -e 's|SystemdCgroup = true|&\n    BinaryName = "/kind/bin/runc.sh"|' "$root/etc/containerd/config.toml"
install -m 755 "$bin"/{kubeadm,kubectl,kubelet} "$root/usr/bin"
version=$("$bin/kubeadm" version -o short)
printf %s "$version" >"$root/kind/version"

echo "== images"
pause=$(sed -n 's/.*sandbox_image = "\(.*\)"/\1/p' "$root/etc/containerd/config.toml")
mkdir "$root/kind/images"
# pack NAME FILE... makes an image of files in the node's root.
pack() {
  local name=$1
  shift
  (cd "$root" && tar -c --dereference "$@") | docker import - "$name" >/dev/null
  packed+=("$name")
}
packed=()
for name in $("$bin/kubeadm" config images list --kubernetes-version "$version"); do
  program=${name##*/}
  program=${program%%:*}
  case $program in
    coredns | pause) continue ;;
    kube-proxy)
      # It runs nft, iptables and conntrack.
      libraries=$(chroot "$root" ldd /usr/sbin/nft /usr/sbin/xtables-nft-multi /usr/sbin/conntrack |
        grep -o '/[^ ]*\.so[^ ]*' | sort -u)
      # shellcheck disable=SC2086 # one word each
      set -- $libraries /usr/sbin/nft /usr/sbin/iptables /usr/sbin/ip6tables /usr/sbin/conntrack
      tables=("$root"/usr/lib/*/xtables)
      extra=("${@#/}" "${tables[@]#"$root/"}")
      ;;
    *) extra=() ;;
  esac
  install -D -m 755 "$bin/$program" "$root/usr/local/bin/$program"
  pack "$name" "usr/local/bin/$program" "${extra[@]}"
  rm "$root/usr/local/bin/$program"
done
# busybox waits as the pause process, and sets up the pods' network.
(cd "$root" && tar -c --dereference bin/busybox) |
  docker import -c 'ENTRYPOINT ["/bin/busybox", "sleep", "2147483647"]' - "$pause" >/dev/null
packed+=("$pause")
docker save -o "$tmp/images.tar" "${packed[@]}"

echo "== $image"
tar -C "$root" --one-file-system -c . |
  docker import -c 'ENV container=docker' \
    -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' - "$image" >/dev/null
container=$(docker run -d --entrypoint sleep "$image" infinity)
docker cp "$tmp/images.tar" "$container:/images.tar"
docker exec "$container" sh -euc '
  containerd >/var/log/containerd-import.log 2>&1 &
  for i in $(seq 60); do ctr version >/dev/null 2>&1 && break; sleep 0.5; done
  ctr -n k8s.io images import --no-unpack /images.tar
  kill $!
  wait $! || true
  rm /images.tar /var/log/containerd-import.log'
docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' --change "LABEL sources=$sources" \
  "$container" "$image" >/dev/null
docker image rm "${packed[@]}" >/dev/null
