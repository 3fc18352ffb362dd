#!/usr/bin/env bash
# Runs a Docker engine for machines where none runs, such as CI without systemd. Needs root, and installs Debian's
# docker.io if dockerd is missing. Other engines, and what they and users made, are left alone: this engine has
# directories, a socket, a bridge, a range of addresses and a cgroup of its own.
#
#   eval "$(hack/docker/engine.sh up DIR)"    # starts it and sets DOCKER_HOST, and DOCKER to the command that fits
#   hack/docker/engine.sh stop DIR            # ends it; the machine is as it was, and its images stay in DIR
#   hack/docker/engine.sh down DIR            # removes DIR as well
#
# `up` does what `stop` does if it fails or is interrupted. Only after a SIGKILL it does not.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [[ $# != 2 || ! $1 =~ ^(up|stop|down)$ || ! $2 =~ ^/[A-Za-z0-9/._-]*[A-Za-z0-9_-]$ ]]; then
  echo "usage: $0 up|stop|down DIR, with DIR an absolute path of letters, digits, dots, dashes and underscores" >&2
  exit 2
fi
((EUID == 0)) || { echo "a Docker engine needs root" >&2; exit 1; }
dir=$2
# The name of its bridge and cgroup, which also stands in its rules. A bridge's name has at most 15 characters.
name=engine-$(sha256sum <<<"$dir" | cut -c1-8)
# Whatever DIR names, only what an engine left there is removed. The file data/$name, which `up` creates, marks it.
if [[ -n $(ls -A "$dir" 2>/dev/null) && ! -e $dir/data/$name && ! -d $dir/data/buildkit ]]; then
  echo "$dir is not the directory of an engine: name a new or empty one" >&2
  exit 1
fi

# processes NAME ARGUMENT prints the ids of the processes whose name begins with NAME and that have ARGUMENT.
processes() {
  local process command
  for process in /proc/[0-9]*; do
    { read -r command <"$process/comm"; } 2>/dev/null || continue
    if [[ $command == "$1"* ]] && grep -qzxsF -- "$2" "$process/cmdline"; then echo "${process#/proc/}"; fi
  done
}
engine() { processes dockerd "$dir/daemon.json"; }
# Each container has a process of this name, which outlives an engine that was killed.
shims() { processes containerd-shim "$dir/exec/containerd/containerd.sock"; }
cgroups() { find /sys/fs/cgroup -depth -type d \( -name "$name" -o -path "*/$name/*" \); }
others() { pidof dockerd >/dev/null; }
docker() { /usr/bin/docker -H "unix://$dir/socket" "$@"; }

# rules -I adds the engine's rules to those of iptables, rules -D deletes them: its containers reach what the machine
# reaches. Docker's own rules would be in chains that all engines share, and would change the policy of FORWARD.
rules() {
  local table chain rule
  while read -r table chain rule; do
    # shellcheck disable=SC2086 # words
    iptables -w -t "$table" "$1" "$chain" $rule -m comment --comment "$name" || [[ $1 == -D ]]
  done <<END
filter FORWARD -s $pool -j ACCEPT
filter FORWARD -d $pool -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
nat POSTROUTING -s $pool ! -d $pool -j MASQUERADE
END
}

# start starts the engine and waits until it answers.
start() {
  local i pid
  # What an engine that was killed left: a zombie still counts as running.
  for pid in $(processes containerd "$dir/exec/containerd/containerd.toml"); do kill -KILL "$pid"; done
  rm -f "$dir/pid" "$dir/exec/containerd/containerd.pid"
  # In a session of its own, so that Ctrl-C in a terminal does not end it.
  setsid dockerd --config-file "$dir/daemon.json" >"$dir/log" 2>&1 </dev/null &
  pid=$!
  for ((i = 0; i < 60; i++)); do
    if docker version >/dev/null 2>&1; then return; fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.5
  done
  echo "the Docker engine does not start; the end of $dir/log:" >&2
  tail -n 20 "$dir/log" >&2
  return 1
}

# stop ends the engine with its containers, and takes back what `up` and the engine changed.
stop() {
  local pid i path bridge id link groups left
  # Only an engine can end the containers of one that was killed.
  if [[ -z $(engine) && -n $(shims) ]]; then start || exit; fi
  for pid in $(engine); do
    docker ps -aq 2>/dev/null | xargs -r /usr/bin/docker -H "unix://$dir/socket" rm -fv >/dev/null || true
    kill "$pid"
    for ((i = 0; i < 120; i++)); do
      [[ -n $(engine) ]] || break
      sleep 0.5
    done
    [[ -z $(engine) ]] || { echo "the Docker engine $pid does not end" >&2; exit 1; }
  done
  # A build that was running does not end with its engine.
  mapfile -t groups < <(cgroups)
  for ((i = 0; i < 50 && ${#groups[@]}; i++)); do
    mapfile -t left < <(cat "${groups[@]/%//cgroup.procs}" 2>/dev/null | sort -u)
    ((${#left[@]})) || break
    kill -KILL "${left[@]}" 2>/dev/null || true
    sleep 0.1
  done
  for path in "${groups[@]}"; do rmdir "$path"; done
  awk -v dir="$dir/" 'index($5, dir) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r path; do
    umount "$path"
  done
  if [[ -e $dir/before ]]; then
    # shellcheck source=/dev/null # sets pool, forwarding and absent
    . "$dir/before"
    # Docker names the bridges of networks by the networks' ids, and keeps those here.
    for bridge in /sys/class/net/{br-*,"$name"}; do
      id=${bridge##*/br-}
      if [[ $bridge != */"$name" ]]; then
        grep -qsaF "$id" "$dir/data/network/files/local-kv.db" || continue
      fi
      for link in "$bridge"/brif/*; do ip link delete "${link##*/}" 2>/dev/null || true; done
      ip link delete "${bridge##*/}" 2>/dev/null || true
    done
    rules -D 2>/dev/null
    if ! others; then
      if [[ $forwarding != 1 ]]; then echo "$forwarding" >/proc/sys/net/ipv4/ip_forward; fi
      for path in "${absent[@]}"; do
        if [[ -d $path ]]; then rmdir --ignore-fail-on-non-empty "$path"; else rm -f "$path"; fi
      done
    fi
  fi
  # What remains are the images, and what builds keep.
  rm -rf --one-file-system "$dir"/{before,daemon.json,exec,log,pid,socket,data/{containers,network}}
  if [[ -d $dir ]]; then rmdir --ignore-fail-on-non-empty "$dir"; fi
}

case $1 in
  stop)
    stop
    exit
    ;;
  down)
    stop
    rm -rf --one-file-system "$dir"
    exit
    ;;
esac

if ! command -v dockerd >/dev/null; then
  # apt sees no systemd and no runlevel with services, so the package starts no engine. Nor does the next boot. No
  # installed package, such as containerd.io, is removed, and needrestart (Ubuntu) restarts no services.
  enabled=()
  for unit in {multi-user.target.wants/{docker,containerd}.service,sockets.target.wants/docker.socket}; do
    unit=/etc/systemd/system/$unit
    [[ -L $unit ]] || enabled+=("$unit")
  done
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 unshare --mount bash -euc '
    if [[ -d /run/systemd ]]; then mount -t tmpfs none /run/systemd; fi
    apt-get update -q
    apt-get install -qy --no-install-recommends --no-remove docker.io' >&2
  rm -f "${enabled[@]}"
fi
if [[ -z $(engine) ]]; then
  mkdir -p "$dir/data"
  touch "$dir/data/$name"
  if [[ -e $dir/before ]]; then
    # shellcheck source=/dev/null
    . "$dir/before"
  else
    # One of Docker's own ranges that no route of this machine leads into.
    for ((i = 31; i > 16; i--)); do
      pool=172.$i.0.0/16
      routes=$(ip -4 route show table all root "$pool"; ip -4 route show table all match "$pool")
      grep -qv -e ^default -e '^$' <<<"$routes" || break
    done
    ((i > 16)) || { echo "no range of addresses is free for the engine: 172.17.0.0/16 to 172.31.0.0/16" >&2; exit 1; }
    forwarding=$(</proc/sys/net/ipv4/ip_forward)
    # What Docker makes outside of its directories; the last first, as they are removed in this order.
    absent=()
    for path in /etc/docker/key.json /etc/docker /run/docker/plugins /run/docker /run/containerd/s /run/containerd; do
      [[ -e $path ]] || absent+=("$path")
    done
    declare -p pool forwarding absent >"$dir/before.new"
    mv "$dir/before.new" "$dir/before"
  fi
  trap stop EXIT
  trap 'exit 130' INT TERM HUP
  # Privileged containers get every capability, which fails where this machine itself lacks one: CAP_SYS_RESOURCE is
  # bit 24.
  runtime=runc
  if ! ((0x$(awk '/^CapBnd/ {print $2}' /proc/self/status) >> 24 & 1)); then runtime=without-sys-resource; fi
  cat >"$dir/daemon.json" <<END
{
  "data-root": "$dir/data",
  "exec-root": "$dir/exec",
  "pidfile": "$dir/pid",
  "hosts": ["unix://$dir/socket"],
  "bridge": "$name",
  "default-address-pools": [{"base": "$pool", "size": 24}],
  "iptables": false,
  "ip-forward": false,
  "cgroup-parent": "/$name",
  "builder": {"gc": {"enabled": true, "defaultKeepStorage": "4GB"}},
  "exec-opts": ["native.cgroupdriver=cgroupfs"],
  "runtimes": {"without-sys-resource": {"path": "$here/runc.sh"}},
  "default-runtime": "$runtime"
}
END
  [[ -e /sys/class/net/$name ]] || ip link add "$name" type bridge
  ip address replace "${pool%.0/16}.1/24" dev "$name"
  ip link set "$name" up
  rules -D 2>/dev/null
  rules -I
  echo 1 >/proc/sys/net/ipv4/ip_forward
  start
  trap - EXIT
fi
echo "export DOCKER_HOST=unix://$dir/socket DOCKER=/usr/bin/docker"
