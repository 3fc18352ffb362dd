// Package install tests that what a release has can be installed on an empty cluster, replaced and removed, and that it takes the
// place of kubernetes-sigs/metrics-server. It needs the build tag e2e and an empty cluster: `make e2e-install` sees to all
// of it.
package install
