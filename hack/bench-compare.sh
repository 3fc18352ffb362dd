#!/usr/bin/env bash
# Runs the Go benchmarks of another commit and of this tree alternately, so that changes in the machine's load affect
# both, and compares them with benchstat.
#   hack/bench-compare.sh COMMIT [REGEXP [PACKAGE...]]
# COUNT (default 10) is how often each is run; BENCHFLAGS are passed to `go test`.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# == 0)); then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
base=$1
shift
regexp=${1:-.}
(($# == 0)) || shift
packages=("$@")
((${#packages[@]})) || packages=(./pkg/...)
count=${COUNT:-10}
tools=$PWD/hack/tools/go.mod

tmp=$(mktemp -d)
end() {
  git worktree remove --force "$tmp/base" 2>/dev/null || true
  rm -rf "$tmp"
}
trap end EXIT
trap 'exit 130' INT TERM HUP
git worktree add --quiet --detach "$tmp/base" "$base"
for ((i = 1; i <= count; i++)); do
  echo "round $i of $count" >&2
  for side in base here; do
    dir=$PWD
    [[ $side == here ]] || dir=$tmp/base
    # shellcheck disable=SC2086 # flags are words
    (cd "$dir" && go test -run '^$' -bench "$regexp" -benchmem ${BENCHFLAGS:-} "${packages[@]}") >>"$tmp/$side.txt"
  done
done
go tool -modfile="$tools" benchstat "base=$tmp/base.txt" "here=$tmp/here.txt"
