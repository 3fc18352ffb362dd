// Package inventory tracks which nodes and running pods exist by watching the API server.
//
// It keeps only what is served or selected by: names, labels, a hash of the UID, if wanted what manages
// a pod and, for a node, where its kubelet listens and how much CPU and memory it has. Objects are
// reduced to that while they are decoded, so no list is ever held in full. While the API server is
// unavailable, the last known state remains.
//
// Run does all the writing, with one goroutine each for nodes and pods. All other functions may be
// called from any goroutine at any time, also before Run, and never wait for a writer.
package inventory

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/sample"
)

// Config configures an Inventory. Client must be set.
type Config struct {
	// Client reads nodes and the metadata of pods. It is from NewClient.
	Client rest.Interface
	// NodeSelector is a label selector. The Inventory ignores nodes that it does not match.
	NodeSelector string
	// OnNode is called with a node that is new or whose Node has changed, OnNodeGone with a
	// node that was deleted or is no longer selected. For a node that was deleted and recreated under
	// the same name, OnNodeGone is called first, while neither is in Nodes, even if only the new node was
	// seen. Both are called in order from one goroutine, after Nodes has changed; watching waits while they
	// run. Either may be nil.
	OnNode     func(Node)
	OnNodeGone func(sample.Object)
	// OnPodGone is called with a pod that was in Pods and has been deleted, has stopped running or has been
	// recreated under the same name, even if only a later list showed that. It is called in order from
	// one goroutine, after the pod has left Pods and before another takes its name; watching waits while it
	// runs. It may be nil.
	OnPodGone func(sample.Object)
	// OnPodNew is called with a pod that is new in Pods, unless Pods was empty before a list. It is called
	// from the same goroutine, after Pods has changed. It may be nil.
	OnPodNew func(sample.Object)
	// OnNodesLeaving and OnPodsLeaving are called within Publish with the objects that are about to leave
	// Nodes or Pods, and with the revision of that: whoever finds them gone finds what these functions
	// recorded. They must not wait for anything. Either may be nil.
	OnNodesLeaving, OnPodsLeaving func([]sample.Object, sample.Revision)
	// Publish calls change once, with the revision of a change that happens now, before anybody can know
	// that revision: change makes the change visible in Nodes or Pods, and does not wait for anything.
	// Default: changes have no revision.
	Publish func(change func(sample.Revision))
}

// Node is a node and where its kubelet listens. It is immutable.
type Node struct {
	sample.Object
	Addresses   []Address // as its status lists them
	KubeletPort int32     // as its status says; 0: it does not
	MetricsPath string    // its annotation kubeapi.PathAnnotation, or ""
	Version     string    // of its kubelet, as its status says
	Capacity    sample.Capacity
}

// Address is one address of a node. Type is one of core/v1's NodeAddressType.
type Address struct{ Type, Address string }

// Inventory is the set of nodes and running pods. Make one with New.
type Inventory struct {
	nodes, pods *source
}

// New returns an Inventory that is empty until Run.
func New(c Config) *Inventory {
	if c.OnNode == nil {
		c.OnNode = func(Node) {}
	}
	nodeHooks := hooks{publish: c.Publish, leaving: c.OnNodesLeaving, onGone: c.OnNodeGone}
	podHooks := hooks{publish: c.Publish, leaving: c.OnPodsLeaving, onGone: c.OnPodGone, onNew: c.OnPodNew}
	return &Inventory{
		nodes: &source{
			health:   health{resource: "nodes"},
			store:    &nodeStore{objects: objects{hooks: nodeHooks}, onNode: c.OnNode},
			from:     collection{client: c.Client, name: "nodes"},
			example:  &corev1.Node{},
			selected: metav1.ListOptions{LabelSelector: c.NodeSelector},
		},
		pods: &source{
			health:   health{resource: "pods"},
			store:    &podStore{objects{hooks: podHooks}},
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
	wg.Go(func() { i.pods.run(ctx) })
	wg.Wait()
	return nil
}

// Nodes is the set of nodes. Their namespace is empty.
func (i *Inventory) Nodes() *ObjectSet { return i.nodes.objectSet() }

// Pods is the set of pods in phase Running.
func (i *Inventory) Pods() *ObjectSet { return i.pods.objectSet() }

// NodesSynced returns nil once OnNode has been called for every node. Until then it returns an error
// with what is missing, the cause as far as it is known, and the remedy.
func (i *Inventory) NodesSynced() error { return i.nodes.synced() }

// PodsSynced is NodesSynced for pods.
func (i *Inventory) PodsSynced() error { return i.pods.synced() }
