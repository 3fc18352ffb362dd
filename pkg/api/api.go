// Package api serves metrics.k8s.io, v1 and v1beta1, on a generic API server: it joins what exists
// (Objects) with what it uses (NodeReader, PodReader) at the moment of the request. It keeps no
// state, so everything in it may be used by many requests at once; so must the readers be.
//
// A list is written while it is read: as JSON, protobuf or Table straight from the usage, without an object of
// the API in between (see lazy). Unusual formats are left to the generic server.
//
// Lists are complete and in the order of Objects: limit is ignored and no continue token is ever
// given. The resourceVersion is empty everywhere, because usage has none.
package api

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/metrics/pkg/apis/metrics"

	"metrics-server/pkg/sample"
)

// NodeReader knows the usage of nodes.
type NodeReader interface {
	// Node returns the usage of a node and whether there is one.
	Node(name string, now time.Time) (sample.NodeUsage, bool)
	// WhyNoNode says in plain words why Node reports none.
	WhyNoNode(name string, now time.Time) string
}

// ScrapeReader knows how scraping goes.
type ScrapeReader interface {
	// Scrape returns that of a node, zero if it was not asked yet.
	Scrape(node string) sample.Scrape
}

// PodReader knows the usage of pods.
type PodReader interface {
	// Pods writes the usages of pods, their containers sorted by name, over into, which is as long, and whose memory it
	// reuses. One that has no usage has no containers then.
	Pods(pods []sample.Object, now time.Time, into []sample.PodUsage)
	// WhyNoPod says in plain words why Pods gives none.
	WhyNoPod(namespace, name string, now time.Time) string
}

// Objects knows which objects of one resource exist.
type Objects interface {
	Get(namespace, name string) (sample.Object, bool)
	// All yields the objects of a namespace, or of all if it is empty, sorted by namespace and name. Unless selects is nil,
	// those whose labels it refuses are left out; it need not be asked again for labels that are the same slice.
	All(namespace string, selects func(sample.Labels) bool) iter.Seq[sample.Object]
}

// Config says what an API serves. All fields but Registerer are required.
type Config struct {
	Nodes     Objects
	Pods      Objects
	NodeUsage NodeReader
	PodUsage  PodReader
	Scrapes   ScrapeReader

	// Registerer takes the metrics of this package; nil leaves them unregistered.
	Registerer prometheus.Registerer
}

// API is the group metrics.k8s.io. Make it with New; the generic server that serves it was configured with Codecs and Configure, has
// Handler before the API, and is then given to Install.
type API struct{ resources map[string]anyStorage }

// anyStorage is a storage of either kind.
type anyStorage interface {
	rest.Storage
	rest.Scoper

	get(namespace, name string, f *form) (runtime.Object, error)
	answer(ctx context.Context, q *query, f *form) (runtime.Object, error)
}

// New makes an API.
func New(c Config) (*API, error) {
	m, err := newServerMetrics(c.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the API: %w", err)
	}
	return &API{map[string]anyStorage{
		"nodes": &storage[metrics.NodeMetrics, *metrics.NodeMetrics]{kind: nodes{c.NodeUsage, c.Scrapes}, objects: c.Nodes, metrics: m},
		"pods":  &storage[metrics.PodMetrics, *metrics.PodMetrics]{kind: pods{c.PodUsage}, objects: c.Pods, metrics: m},
	}}, nil
}

// Install adds the group to s.
func (a *API) Install(s *genericapiserver.GenericAPIServer) error {
	resources := map[string]rest.Storage{}
	for name, r := range a.resources {
		resources[name] = r
	}
	group := genericapiserver.NewDefaultAPIGroupInfo(metrics.GroupName, Scheme, metav1.ParameterCodec, Codecs)
	for _, v := range group.PrioritizedVersions {
		group.VersionedResourcesStorageMap[v.Version] = resources
	}
	if err := s.InstallAPIGroup(&group); err != nil {
		return fmt.Errorf("install the API group %s: %w", metrics.GroupName, err)
	}
	return nil
}
