// Package inventory knows which nodes and running pods exist, from watches of the API server.
//
// Only what is served or selected by is kept: names, labels, a hash of the UID, and of a node also where its kubelet
// listens. Objects are cut down to that as they are decoded, so that neither the first list nor a
// later one is ever held in full. While the API server is away, what is known stays.
//
// Run does all the writing, one goroutine to each of nodes and pods. Everything else may be called from any
// goroutine at any time, before Run too, and never waits for a writer.
package inventory

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/sample"
)

// Config is what an Inventory needs. Client must be set.
type Config struct {
	// Client reads nodes and the metadata of pods. It is from NewClient.
	Client rest.Interface
	// NodeSelector is a label selector. Nodes that it does not match do not exist for the Inventory.
	NodeSelector string
	// OnNode is called with a node that is new or of which anything in Node has changed; OnNodeGone with
	// the name of one that was deleted or is no longer selected. A node that was deleted and made
	// anew under its name is first gone, even if only the new one was seen. Both are called in
	// order from one goroutine, after Nodes has changed; watching waits while they run. nil: nobody is told.
	OnNode     func(Node)
	OnNodeGone func(name string)
	// OnPodGone is called with a pod that was in Pods and was deleted, runs no more or was made anew under
	// its name, even if that was only seen by a later list. It is called in order from one goroutine,
	// after Pods has changed; watching waits while it runs. nil: nobody is told.
	OnPodGone func(namespace, name string)
	// BeforePods is called once, and pods are listed when it returns. nil: at once.
	BeforePods func(context.Context)
}

// Node is a node and where its kubelet listens. It is immutable.
type Node struct {
	sample.Object
	Addresses   []Address // as its status lists them
	KubeletPort int32     // as its status says; 0: it does not
	MetricsPath string    // its annotation PathAnnotation, or ""
}

// PathAnnotation is the annotation of a node that says at which path its resource metrics are.
const PathAnnotation = "metrics.k8s.io/resource-metrics-path"

// Address is one address of a node. Type is one of core/v1's NodeAddressType.
type Address struct{ Type, Address string }

// Inventory is the set of nodes and running pods. Make one with New.
type Inventory struct {
	nodes, pods *source
	beforePods  func(context.Context)
}

// New returns an Inventory that is empty until Run.
func New(c Config) *Inventory {
	if c.OnNode == nil {
		c.OnNode = func(Node) {}
	}
	if c.OnNodeGone == nil {
		c.OnNodeGone = func(string) {}
	}
	if c.OnPodGone == nil {
		c.OnPodGone = func(string, string) {}
	}
	if c.BeforePods == nil {
		c.BeforePods = func(context.Context) {}
	}
	return &Inventory{
		beforePods: c.BeforePods,
		nodes: &source{
			health:   health{resource: "nodes"},
			store:    &nodeStore{onNode: c.OnNode, onGone: c.OnNodeGone},
			from:     collection{client: c.Client, name: "nodes"},
			example:  &corev1.Node{},
			selected: metav1.ListOptions{LabelSelector: c.NodeSelector},
		},
		pods: &source{
			health:   health{resource: "pods"},
			store:    &podStore{onGone: c.OnPodGone},
			from:     collection{client: c.Client, name: "pods", asList: metadataListKind, as: metadataKind},
			example:  &metav1.PartialObjectMetadata{},
			selected: metav1.ListOptions{FieldSelector: "status.phase=" + string(corev1.PodRunning)},
		},
	}
}

// Run watches until ctx ends and returns nil then: whatever the API server does, it goes on trying.
// It may be called once.
func (i *Inventory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { i.nodes.run(ctx) })
	wg.Go(func() {
		i.beforePods(ctx)
		i.pods.run(ctx)
	})
	wg.Wait()
	return nil
}

// Nodes is the set of nodes. Their namespace is empty.
func (i *Inventory) Nodes() *Index { return i.nodes.index() }

// Pods is the set of pods in phase Running.
func (i *Inventory) Pods() *Index { return i.pods.index() }

// NodesSynced returns nil from the moment that every node was seen and told to OnNode once. Until then
// it says what is missing, why as far as known, and the remedy.
func (i *Inventory) NodesSynced() error { return i.nodes.synced() }

// PodsSynced is to pods what NodesSynced is to nodes.
func (i *Inventory) PodsSynced() error { return i.pods.synced() }
