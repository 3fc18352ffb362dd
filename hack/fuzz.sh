#!/usr/bin/env bash
# Runs each fuzz target of some packages for some time: hack/fuzz.sh 30s ./...
# All targets run even if one finds a bug; the script then fails.
set -euo pipefail
cd "$(dirname "$0")/.."
time=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed=()
while read -r package name; do
  echo "== $package $name"
  # Minimizing an input as long as a kubelet's answer would take all of the fuzzing time.
  if go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$package" \
    </dev/null 2>&1 | tee "$log"; then
    continue
  fi
  # Go 1.26 may report that the time is up as a failure (https://go.dev/issue/75804). A real finding
  # is always saved to a file.
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
