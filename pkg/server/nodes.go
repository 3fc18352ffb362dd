package server

import (
	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/scrape"
)

// nodes keeps one kubelet client and one schedule for each node of the inventory, which calls it
// from one goroutine.
type nodes struct {
	kubelets *kubelet.Clients
	scraper  *scrape.Scraper
	sink     *sink
	clients  map[string]*kubelet.Client
}

func newNodes(k *kubelet.Clients, s *scrape.Scraper, to *sink) *nodes {
	return &nodes{kubelets: k, scraper: s, sink: to, clients: map[string]*kubelet.Client{}}
}

func (n *nodes) set(node inventory.Node) {
	e := kubelet.Endpoint{Node: node.Name, Port: node.KubeletPort, Path: node.MetricsPath}
	for _, a := range node.Addresses {
		e.Addresses = append(e.Addresses, kubelet.Address(a))
	}
	if c := n.clients[node.Name]; c != nil {
		c.SetEndpoint(e)
		return
	}
	c := n.kubelets.Client(e)
	n.clients[node.Name] = c
	n.scraper.Add(node.Name, c)
}

// remove forgets a node: first its schedule, so that no late answer brings it back.
func (n *nodes) remove(name string) {
	n.scraper.Remove(name)
	n.sink.forget(name)
	if c := n.clients[name]; c != nil {
		c.Close()
		delete(n.clients, name)
	}
}
