package server

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/klog/v2"

	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
)

// nodes keeps one kubelet client and one schedule for each node of the inventory, which calls set
// and remove from a single goroutine.
type nodes struct {
	kubelets *kubelet.Clients
	scraper  *scrape.Scraper
	sink     *sink
	clients  map[string]*kubelet.Client
	places   places

	mu         sync.RWMutex // guards the field that follows
	capacities map[string]sample.Capacity
}

func newNodes(k *kubelet.Clients, s *scrape.Scraper, to *sink) *nodes {
	return &nodes{
		kubelets: k, scraper: s, sink: to,
		clients: map[string]*kubelet.Client{}, places: newPlaces(), capacities: map[string]sample.Capacity{},
	}
}

// capacity returns the CPU and memory capacity of a node. It is safe for concurrent use.
func (n *nodes) capacity(name string) sample.Capacity {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.capacities[name]
}

func (n *nodes) set(node inventory.Node) {
	n.mu.Lock()
	n.capacities[node.Name] = node.Capacity
	n.mu.Unlock()
	e := kubelet.Endpoint{
		Node: node.Name, Port: node.KubeletPort, Path: node.MetricsPath,
		Virtual: kubelet.IsVirtual(node.Version, node.Labels.Map()),
	}
	for _, a := range node.Addresses {
		e.Addresses = append(e.Addresses, kubelet.Address(a))
	}
	c, known := n.clients[node.Name]
	if known {
		c.SetEndpoint(e)
	} else {
		c = n.kubelets.Client(e)
		n.clients[node.Name] = c
		n.scraper.Add(node.Name, c)
	}
	if place, sharing := n.places.set(node.Name, n.kubelets.Places(e)); place != "" {
		klog.InfoS("Warning: Two nodes have the same kubelet address, "+
			"so both are served the usage of the one machine that answers there",
			"address", place, "nodes", strings.Join(sharing, ", "), "remedy", remedySharedAddress)
	}
}

const remedySharedAddress = "if one of them no longer exists, delete its Node " +
	"(kubectl delete node NAME); otherwise give each kubelet an address of its own (--node-ip)"

// remove forgets a node. Its schedule goes first, so that a late response cannot bring the node
// back.
func (n *nodes) remove(name string) {
	n.scraper.Remove(name)
	n.sink.forget(name)
	n.mu.Lock()
	delete(n.capacities, name)
	n.mu.Unlock()
	n.places.set(name, nil)
	if c := n.clients[name]; c != nil {
		c.Close()
		delete(n.clients, name)
	}
}

// places groups nodes by where their kubelets are: see kubelet.Clients.Places.
type places struct {
	of map[string][]string // the places of each node that has some
	at map[string][]string // the nodes of each place, sorted
}

func newPlaces() places { return places{of: map[string][]string{}, at: map[string][]string{}} }

// set moves a node to its places. If one of them is new to it and it is now the second node there, set returns that
// place and its two nodes; otherwise "" and nil.
func (p *places) set(node string, now []string) (shared string, sharing []string) {
	before := p.of[node]
	for _, place := range before {
		if slices.Contains(now, place) {
			continue
		}
		p.at[place] = slices.DeleteFunc(p.at[place], func(other string) bool { return other == node })
		if len(p.at[place]) == 0 {
			delete(p.at, place)
		}
	}
	for _, place := range now {
		if slices.Contains(before, place) {
			continue
		}
		i, _ := slices.BinarySearch(p.at[place], node)
		p.at[place] = slices.Insert(p.at[place], i, node)
		if len(p.at[place]) == 2 && shared == "" {
			shared, sharing = place, p.at[place]
		}
	}
	if p.of[node] = now; len(now) == 0 {
		delete(p.of, node)
	}
	return shared, sharing
}
