#!/usr/bin/env bash
# Prints the -ldflags of every build of the server: the binary of `make build`, both ways to build the
# image, releases. The stamp depends on the commit alone, so the same commit gives the same bytes.
# With -docker it prints the stamp as arguments of `docker build` instead: there is no git in that build.
#
# From the environment, else from git, else (an unpacked tarball) placeholders:
#   VERSION     v1.2.3, or v0.0.0-<commits>-g<commit> before the first tag. Always semantic.
#   COMMIT      full hash
#   TREE_STATE  clean or dirty
#   BUILD_DATE  RFC 3339, the date of the commit
set -euo pipefail
cd "$(dirname "$0")/.."

# Only this directory's own repository counts, not one that a tarball happens to be unpacked in.
if [[ -e .git ]] && commit=$(git rev-parse --verify --quiet 'HEAD^{commit}' 2>/dev/null); then
  state=clean
  [[ -z $(git status --porcelain 2>/dev/null) ]] || state=dirty
  if ! version=$(git describe --tags --match 'v[0-9]*' --abbrev=12 2>/dev/null); then
    version=v0.0.0-$(git rev-list --count HEAD)-g${commit:0:12}
  fi
  [[ $state == clean ]] || version+=-dirty
  date=$(TZ=UTC0 git show --no-patch --no-show-signature --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd HEAD)
fi

version=${VERSION:-${version:-v0.0.0-unknown}}
commit=${COMMIT:-${commit:-unknown}}
state=${TREE_STATE:-${state:-unknown}}
date=${BUILD_DATE:-${date:-1970-01-01T00:00:00Z}}
if [[ ${1:-} == -docker ]]; then
  echo "--build-arg VERSION=$version --build-arg COMMIT=$commit" \
    "--build-arg TREE_STATE=$state --build-arg BUILD_DATE=$date"
  exit
fi

# Not k8s.io/component-base/version: there the libraries read which Kubernetes release they are to behave as.
pkg=k8s.io/client-go/pkg/version
echo "-s -w -X $pkg.gitVersion=$version -X $pkg.gitCommit=$commit -X $pkg.gitTreeState=$state -X $pkg.buildDate=$date"
