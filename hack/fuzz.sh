#!/usr/bin/env bash
# Runs each fuzz target for as long as its first argument says, of the packages that follow: hack/fuzz.sh 30s ./... All of them run,
# also when one has found something, and then it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed=()
while read -r package name; do
  echo "== $package $name"
  # Inputs are hardly minimized: of a kubelet's answer, which is long, that would take all the time that there is.
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$package" </dev/null 2>&1 | tee "$log"; then
    continue
  fi
  # Go 1.26 may take the end of the time for a failure (https://go.dev/issue/75804). What is found is always kept in a file.
  if grep -q '^ *context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
    echo "$name has found nothing: its time was up"
    continue
  fi
  failed+=("$name")
done < <(go test -list '^Fuzz' "$@" |
  awk '/^Fuzz/ {name[n++] = $1} /^ok/ {for (i = 0; i < n; i++) print $2, name[i]; n = 0}')
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
