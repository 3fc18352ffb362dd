package inventory

import (
	"fmt"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/sample"
)

// nodeStore is the store of nodes. Besides the objects, it holds the other data of each node.
type nodeStore struct {
	objects
	nodes  map[string]*nodeEntry
	onNode func(Node)
}

type nodeEntry struct {
	passed
	entry
	addresses []Address
	port      int32
	path      string
	version   string
	capacity  sample.Capacity
}

func (n *nodeEntry) equal(o *nodeEntry) bool {
	return n.uid == o.uid && n.port == o.port && n.path == o.path && n.capacity == o.capacity && n.version == o.version &&
		slices.Equal(n.addresses, o.addresses) && n.set.equal(o.set)
}

func (s *nodeStore) compact(object any) (runtime.Object, error) { return s.node(object) }

func (s *nodeStore) node(object any) (*nodeEntry, error) {
	from, ok := object.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("%T is not a node", object)
	}
	n := &nodeEntry{
		entry:     s.entry(from),
		addresses: make([]Address, len(from.Status.Addresses)),
		port:      from.Status.DaemonEndpoints.KubeletEndpoint.Port,
		path:      from.Annotations[kubeapi.PathAnnotation],
		version:   s.labels.word(from.Status.NodeInfo.KubeletVersion),
		capacity: sample.Capacity{
			CPU:    scaled(from.Status.Capacity[corev1.ResourceCPU], 1e9),
			Memory: scaled(from.Status.Capacity[corev1.ResourceMemory], 1),
		},
	}
	for i, a := range from.Status.Addresses {
		n.addresses[i] = Address{Type: string(a.Type), Address: a.Address}
	}
	return n, nil
}

// scaled returns q times units, 0 if q is not positive, and at most the largest int64: a kubelet can
// report any number.
func scaled(q resource.Quantity, units float64) uint64 {
	v := math.Round(q.AsApproximateFloat64() * units)
	switch {
	case v >= math.MaxInt64:
		return math.MaxInt64
	case v > 0:
		return uint64(v)
	}
	return 0
}

// Add adds or changes a node.
func (s *nodeStore) Add(object any) error {
	n, err := s.node(object)
	if err != nil {
		return err
	}
	old := s.nodes[n.name]
	if old != nil && old.equal(n) {
		return nil // a heartbeat
	}
	if s.nodes == nil {
		s.nodes = make(map[string]*nodeEntry)
	}
	s.nodes[n.name] = n
	s.put(n.entry)
	s.tell(n)
	return nil
}

// Update is Add.
func (s *nodeStore) Update(object any) error { return s.Add(object) }

// Delete removes a node.
func (s *nodeStore) Delete(object any) error {
	if o, ok := object.(metav1.Object); ok {
		delete(s.nodes, o.GetName())
	}
	return s.remove(object)
}

// Replace makes items, each a *nodeEntry, the whole set, and reports the difference to the callbacks.
func (s *nodeStore) Replace(items []any, _ string) error {
	were := s.nodes
	s.nodes = make(map[string]*nodeEntry, len(items))
	entries := make([]entry, len(items))
	for i, item := range items {
		n := item.(*nodeEntry)
		s.nodes[n.name] = n
		entries[i] = n.entry
	}
	s.replace(entries)
	for _, e := range entries {
		if old, n := were[e.name], s.nodes[e.name]; old == nil || !old.equal(n) {
			s.tell(n)
		}
	}
	return nil
}

// tell reports that a node is new or has changed.
func (s *nodeStore) tell(n *nodeEntry) {
	s.onNode(Node{
		Object: n.object(), Addresses: n.addresses, KubeletPort: n.port, MetricsPath: n.path, Version: n.version,
		Capacity: n.capacity,
	})
}
