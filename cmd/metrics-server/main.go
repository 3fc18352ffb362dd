// Command metrics-server serves the resource metrics API (metrics.k8s.io) of a Kubernetes cluster.
package main

import (
	"os"

	"k8s.io/component-base/cli"

	"metrics-server/pkg/app"
)

func main() {
	os.Exit(cli.Run(app.NewCommand()))
}
