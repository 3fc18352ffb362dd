// Package e2e tests metrics-server in a real cluster, as users run it: kubectl, autoscalers, roll-outs,
// nodes that fail. It needs the build tag e2e, a kubeconfig of an administrator, the server installed from
// deploy/, and the image of ./workload on every node. `make e2e` provides all of it; README.md says how to run
// it on another cluster.
package e2e
