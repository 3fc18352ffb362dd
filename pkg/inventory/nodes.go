package inventory

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// nodeStore is the store of nodes: beside the objects, what else is known of each, and whom to tell.
type nodeStore struct {
	objects
	nodes  map[string]*node
	onNode func(Node)
	onGone func(name string)
}

// node is what is kept of a node.
type node struct {
	passed
	record
	addresses []Address
	port      int32
	path      string
}

func (n *node) equal(o *node) bool {
	return n.uid == o.uid && n.port == o.port && n.path == o.path &&
		slices.Equal(n.addresses, o.addresses) && n.set.equal(o.set)
}

func (s *nodeStore) compact(object any) (runtime.Object, error) { return s.node(object) }

func (s *nodeStore) node(object any) (*node, error) {
	from, ok := object.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("%T is not a node", object)
	}
	n := &node{
		record:    s.record(from),
		addresses: make([]Address, len(from.Status.Addresses)),
		port:      from.Status.DaemonEndpoints.KubeletEndpoint.Port,
		path:      from.Annotations[PathAnnotation],
	}
	for i, a := range from.Status.Addresses {
		n.addresses[i] = Address{Type: string(a.Type), Address: a.Address}
	}
	return n, nil
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
		s.nodes = make(map[string]*node)
	}
	s.nodes[n.name] = n
	s.put(n.record)
	s.tell(old, n)
	return nil
}

// Update is Add.
func (s *nodeStore) Update(object any) error { return s.Add(object) }

// Delete removes a node.
func (s *nodeStore) Delete(object any) error {
	o, found, err := s.remove(object)
	if found {
		delete(s.nodes, o.GetName())
		s.onGone(o.GetName())
	}
	return err
}

// Replace makes items, each a *node, the whole set, and tells the difference.
func (s *nodeStore) Replace(items []any, _ string) error {
	before, were := s.all.load(), s.nodes
	s.nodes = make(map[string]*node, len(items))
	records := make([]record, len(items))
	for i, item := range items {
		n := item.(*node)
		s.nodes[n.name] = n
		records[i] = n.record
	}
	s.replace(records)
	for r := range before.from("") {
		if s.nodes[r.name] == nil {
			s.onGone(r.name)
		}
	}
	for _, r := range records {
		if old, n := were[r.name], s.nodes[r.name]; old == nil || !old.equal(n) {
			s.tell(old, n)
		}
	}
	return nil
}

// tell says that old, nil if there was none, is now n, which differs.
func (s *nodeStore) tell(old, n *node) {
	if old != nil && old.uid != n.uid { // another machine: nothing that is known of the old one holds
		s.onGone(n.name)
	}
	s.onNode(Node{Object: n.object(), Addresses: n.addresses, KubeletPort: n.port, MetricsPath: n.path})
}
