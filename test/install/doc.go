// Package install tests that a release can be installed on an empty cluster, upgraded and removed, and that it replaces
// kubernetes-sigs/metrics-server. It needs the build tag e2e and an empty cluster, which `make e2e-install` provides.
package install
