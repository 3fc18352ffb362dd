#!/usr/bin/env bash
# Tests that engine.sh leaves the machine as it was: after `down`, after an engine that was killed, and after an `up`
# that failed or was interrupted; that it leaves alone what others made meanwhile; and that it refuses directories that
# are not an engine's. Needs root, and Debian's docker.io, which engine.sh installs. Takes a minute.
set -euo pipefail
cd "$(dirname "$0")"
((EUID == 0)) || { echo "$0: a Docker engine needs root" >&2; exit 1; }
tmp=$(mktemp -d)
dir=$tmp/engine
# A network and a rule of somebody else.
other=other-${tmp: -8}
rule=(FORWARD -s 192.0.2.0/24 -d 198.51.100.0/24 -m comment --comment "$other" -j DROP)
end() {
  code=$?
  trap - EXIT
  ./engine.sh down "$dir" || code=1
  ip link delete "$other" 2>/dev/null || true
  iptables -w -D "${rule[@]}" 2>/dev/null || true
  rm -rf "$tmp"
  exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# machine prints everything that an engine changes on a machine, except what is in its directory.
machine() {
  iptables-save | sed -E -e '/^#/d' -e 's/\[[0-9]+:[0-9]+\]//'
  ip -br link | awk '{print "link", $1}' | sort
  ip -br address | awk '{$2 = ""; print "address", $0}' | sort
  ip route show table all | sort
  ip -6 route show table all | sort
  sysctl net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding
  awk '{print "mount", $5}' /proc/self/mountinfo | sort
  find /sys/fs/cgroup -maxdepth 2 -type d \( -name docker -o -name "engine-*" \) | sort
  find /etc/docker /run/docker /run/containerd /var/lib/docker /var/run/docker* 2>/dev/null | sort -u || true
  local process
  for process in /proc/[0-9]*; do
    if grep -qasF "$dir" "$process/cmdline"; then echo "process $(<"$process/comm")"; fi
  done
}
# unchanged WHEN fails unless the machine is as it was.
unchanged() {
  if ! machine | diff "$tmp/machine" - >&2; then echo "$1: the machine is not as it was" >&2; exit 1; fi
  echo "ok: $1"
}
# busy starts an engine, and in it a container on a network of its own.
busy() {
  local up files
  up=$(./engine.sh up "$dir")
  eval "$up"
  files=$(ldd /bin/sleep | grep -o "/[^ ]*" | sed "s,^/,,")
  # shellcheck disable=SC2086 # one word each
  tar -C / -c --dereference bin/sleep $files | "$DOCKER" import - sleep >/dev/null
  "$DOCKER" network create busy >/dev/null
  "$DOCKER" run -d --network busy sleep /bin/sleep 600 >/dev/null
}

mkdir -p "$tmp/mine/data" "$tmp/mine/log"
for action in up stop down; do
  if ./engine.sh "$action" "$tmp/mine" >"$tmp/error" 2>&1; then echo "$action accepted it" >&2; exit 1; fi
  grep -q "is not the directory of an engine" "$tmp/error"
done
[[ -d $tmp/mine/log ]]
echo "ok: a directory that is not an engine's"

# The first `up` installs Docker where it is missing. The package stays, with /etc/docker, and so do the tables of
# iptables that every rule makes, empty.
./engine.sh up "$dir" >/dev/null
./engine.sh down "$dir"
machine >"$tmp/machine"

busy
ip link add "$other" type bridge
iptables -w -I "${rule[@]}"
./engine.sh up "$dir" | grep -q "^export DOCKER_HOST=unix://$dir/socket"
./engine.sh down "$dir"
iptables -w -C "${rule[@]}"
iptables -w -D "${rule[@]}"
ip link delete "$other"
unchanged "an engine that ran"

busy
# What DIR/pid says is the engine of DIR.
kill -KILL "$(<"$dir/pid")"
./engine.sh down "$dir"
unchanged "an engine that was killed"

mkdir "$tmp/bin"
printf '#!/bin/sh\necho "no engine today"\nexit 1\n' >"$tmp/bin/dockerd"
chmod +x "$tmp/bin/dockerd"
if PATH=$tmp/bin:$PATH ./engine.sh up "$dir" 2>"$tmp/error"; then echo "up succeeded without an engine" >&2; exit 1; fi
grep -q "no engine today" "$tmp/error"
unchanged "an engine that does not start"

for signal in TERM KILL; do
  # As soon as the engine has a process.
  ./engine.sh up "$dir" >/dev/null &
  for ((i = 0; i < 600; i++)); do
    [[ ! -s $dir/pid ]] || break
    sleep 0.05
  done
  kill -s "$signal" $!
  wait $! || true
  [[ $signal == TERM ]] || ./engine.sh stop "$dir"
  unchanged "up that SIG$signal ended"
done

busy
printf 'FROM sleep\nRUN ["/bin/sleep", "600"]\n' | DOCKER_BUILDKIT=1 "$DOCKER" build - >/dev/null 2>&1 &
for ((i = 0; i < 600; i++)); do
  [[ -z $(cat /sys/fs/cgroup/{,*/}engine-*/buildkit/*/cgroup.procs 2>/dev/null) ]] || break
  sleep 0.1
done
((i < 600)) || { echo "no build runs" >&2; exit 1; }
./engine.sh stop "$dir"
wait $! || true
unchanged "an engine that was stopped during a build"
up=$(./engine.sh up "$dir")
eval "$up"
"$DOCKER" image inspect sleep >/dev/null
[[ -z $("$DOCKER" ps -aq) ]]
./engine.sh down "$dir"
unchanged "an engine that was started again"
[[ ! -e $dir ]]
