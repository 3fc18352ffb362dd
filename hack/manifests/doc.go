// Package manifests checks deploy/kustomize, and what render.sh makes of it. It has only tests.
package manifests
