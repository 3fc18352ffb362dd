// Package faults tests the promises about kubelets that fail or lie, and about a cluster that
// changes all the time, with the real binary in a fleet. It has only tests; they need the build tag
// faults, which `make test-faults` sets.
package faults
