// Package resource is the API group metrics.k8s.io, v1 and v1beta1: the usage of nodes and pods. It
// describes the group to the engine in pkg/api, and encodes its objects. It keeps no state, so
// everything in it is safe for concurrent use; the readers must be too.
package resource

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apiserver/pkg/registry/rest"

	"metrics-server/pkg/api"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
)

// NodeReader provides the usage of nodes.
type NodeReader interface {
	// Node returns the usage of a node and whether there is one.
	Node(name string, now time.Time) (sample.NodeUsage, bool)
	// WhyNoNode explains in plain words why Node reports no usage.
	WhyNoNode(name string, now time.Time) string
}

// ScrapeReader provides the state of scraping.
type ScrapeReader interface {
	// Scrape returns the state of a node's scrapes; it is zero before the first scrape.
	Scrape(node string) sample.Scrape
}

// PodReader provides the usage of pods.
type PodReader interface {
	// Pods stores the usages of pods in into, which has the same length and whose memory is reused.
	// Containers are sorted by name; a pod without usage gets no containers.
	Pods(pods []sample.Object, now time.Time, into []sample.PodUsage)
	// WhyNoPod explains in plain words why Pods reports no usage.
	WhyNoPod(namespace, name string, now time.Time) string
}

// Config configures the group. All fields except Registerer are required.
type Config struct {
	Nodes     api.Objects
	Pods      api.Objects
	NodeUsage NodeReader
	PodUsage  PodReader
	Scrapes   ScrapeReader

	Clock               *revision.Clock // of the revisions of objects and usages
	NodesGone, PodsGone *api.Deletions

	// Registerer registers the metrics of this package; if nil, they are not registered.
	Registerer prometheus.Registerer
}

// Storages returns the storages of Group, by name of the resource.
func Storages(c Config) (map[string]rest.Storage, error) {
	m, err := newOwnMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of %s: %w", Group.Name, err)
	}
	return map[string]rest.Storage{
		"nodes": api.NewStorage(Group, nodes{usages{m}, c.NodeUsage, c.Scrapes}, c.Nodes, c.Clock, c.NodesGone),
		"pods":  api.NewStorage(Group, pods{usages{m}, c.PodUsage}, c.Pods, c.Clock, c.PodsGone),
	}, nil
}
