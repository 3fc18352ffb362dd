package cluster

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/kubeapi"
)

// maxAsked is about how many nodes the metrics server is asked in each interval.
const maxAsked = 20

// askNodes asks the metrics server why nodes have no usage, until ctx ends.
func (c *Cluster) askNodes(ctx context.Context) {
	for pause(ctx, c.interval) {
		names := c.nodesToAsk()
		if len(names) == 0 {
			continue
		}
		version, _, err := c.metricsVersion(ctx)
		if err != nil {
			continue // the source of the metrics says so
		}
		for _, name := range names {
			reason := c.reason(ctx, version, "", name)
			c.update(func(m *model) {
				if e := m.nodes[name]; e != nil {
					e.reason, e.asked = reason, time.Now()
				}
			})
		}
	}
}

// nodesToAsk returns the nodes without usage that were not asked about for the longest time.
func (c *Cluster) nodesToAsk() (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.model.current(NodeMetrics) {
		return nil
	}
	for name, e := range c.model.nodes {
		if e.row != nil && e.row.Usage.Sampled.IsZero() {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(c.model.nodes[a].asked.Compare(c.model.nodes[b].asked), cmp.Compare(a, b))
	})
	return names[:min(len(names), maxAsked)]
}

// Reason asks the metrics server why it has no usage of a pod. It returns "" if it has one or does not say.
func (c *Cluster) Reason(ctx context.Context, namespace, pod string) string {
	version, _, err := c.metricsVersion(ctx)
	if err != nil {
		return ""
	}
	return c.reason(ctx, version, namespace, pod)
}

// reason asks why a pod, or a node if there is no namespace, has no usage.
func (c *Cluster) reason(ctx context.Context, version, namespace, name string) string {
	resource := "pods"
	if namespace == "" {
		resource = "nodes"
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.client.Get().AbsPath("apis", kubeapi.MetricsGroup, version).
		NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).MaxRetries(0).Do(ctx).Error()
	if !apierrors.IsNotFound(err) {
		return ""
	}
	_, reason, _ := strings.Cut(err.Error(), " has no usage: ") // other metrics servers do not give one
	return reason
}
