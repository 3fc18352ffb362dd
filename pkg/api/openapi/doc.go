// Package openapi holds the generated OpenAPI models of the metrics.k8s.io types. Nothing in it is
// written by hand and nothing has state; after a change of the k8s.io versions in go.mod, run
// go generate here.
package openapi

//go:generate ../../../hack/update-openapi.sh
