#!/usr/bin/env bash
# Calls runc after it has taken out of a container's configuration what fails on a machine without CAP_SYS_RESOURCE:
# the capability itself, which every privileged container gets, and a negative oom_score_adj, which needs it. Where the
# capability is there, it only calls runc.
set -euo pipefail
if ! ((0x$(awk '/^CapBnd/ {print $2}' /proc/self/status) >> 24 & 1)); then
  files=()
  previous=
  for argument; do
    case $previous in
      -b | --bundle) files+=("$argument/config.json") ;;
      -p | --process) files+=("$argument") ;;
    esac
    case $argument in
      --bundle=*) files+=("${argument#*=}/config.json") ;;
      --process=*) files+=("${argument#*=}") ;;
    esac
    previous=$argument
  done
  for file in "${files[@]}"; do
    [[ -f $file ]] || continue
    sed -i -E -e 's/"CAP_SYS_RESOURCE",//g' -e 's/,?"CAP_SYS_RESOURCE"//g' -e 's/,"oomScoreAdj":-[0-9]+//g' "$file"
  done
fi
PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
exec runc "$@"
