// Package integration tests the real metrics-server binary against a real kube-apiserver and etcd,
// with fake kubelets and the real kubectl. Its tests need the build tag integration, and
// KUBE_ASSETS_DIR to name a directory with etcd, kube-apiserver and kubectl: `make test` sees to both.
package integration
