// Package faults tests what is promised of kubelets that fail or lie, and of a cluster that never rests, on the real binary
// in a fleet. It has tests only; they need the build tag faults, and `make test-faults` sees to that.
package faults
