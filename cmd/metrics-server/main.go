// Command metrics-server serves the resource metrics API (metrics.k8s.io) of a Kubernetes cluster.
package main

import (
	"os"

	"metrics-server/pkg/app"
)

func main() {
	os.Exit(app.Run())
}
