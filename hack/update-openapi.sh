#!/usr/bin/env bash
# Writes pkg/api/openapi/zz_generated.openapi.go anew: the OpenAPI models of the metrics.k8s.io
# types and of what they refer to, at the versions that go.mod names. Needs nothing but Go.
# `go generate ./pkg/api/openapi` runs it; `make verify` runs it and compares.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

header=$(mktemp)
report=$(mktemp)
trap 'rm -f "$header" "$report"' EXIT

# The report lists naming rules that upstream's types break: it concerns nobody here.
go tool -modfile=hack/tools/go.mod openapi-gen \
  --go-header-file "$header" \
  --report-filename "$report" \
  --output-dir pkg/api/openapi \
  --output-pkg metrics-server/pkg/api/openapi \
  --output-file zz_generated.openapi.go \
  k8s.io/metrics/pkg/apis/metrics/v1 \
  k8s.io/metrics/pkg/apis/metrics/v1beta1 \
  k8s.io/apimachinery/pkg/api/resource \
  k8s.io/apimachinery/pkg/apis/meta/v1 \
  k8s.io/apimachinery/pkg/runtime \
  k8s.io/apimachinery/pkg/version
