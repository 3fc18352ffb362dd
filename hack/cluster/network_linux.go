package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The nodes' network: the first node's namespace has a bridge, to which one end of each node's link
// belongs. The bridge is made when a second node comes. Routes lead to the pods of the other nodes. All of it is in the
// nodes' namespaces and goes with them.

const (
	nodeLink = "node0"      // a node's link to the others
	nodePeer = "node0-peer" // the other end of the first node's
	bridge   = "nodes"
)

// setUpNetwork gives the first node an address on a link that leads nowhere. The others' links are made by join.
func (n *namespaces) setUpNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if n.Address != "" {
		// Not a dummy device: some kernels have none.
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nodeLink
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nodePeer}); err != nil {
			return fmt.Errorf("add a veth pair: %w", err)
		}
		peer, err := netlink.LinkByName(nodePeer)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(peer); err != nil {
			return err
		}
		if err := configureLink(&netlink.Handle{}, n.Address); err != nil {
			return err
		}
	}
	// Traffic over the bridge must not pass kube-proxy's rules: connections of the first node to a
	// Service, whose address these rules have replaced, would be mistaken for other connections with
	// the same ports.
	err = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("0"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) { // without br_netfilter it does not
		return err
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}

// configureLink gives the node's link its address, and a default route, which kubelet and CNI plugins look for.
func configureLink(h *netlink.Handle, cidr string) error {
	link, err := h.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	address, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(link, address); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere}); err != nil {
		return fmt.Errorf("add the default route: %w", err)
	}
	return nil
}

// network is a node's network namespace, seen from the host.
type network struct {
	*netlink.Handle
	ns netns.NsHandle
}

func networkOf(n node) (network, error) {
	ns, err := netns.GetFromPid(n.Supervisor)
	if err != nil {
		return network{}, fmt.Errorf("network of %s: %w", n.name(), err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return network{}, errors.Join(err, ns.Close())
	}
	return network{h, ns}, nil
}

func (w network) close() {
	w.Close()
	_ = w.ns.Close() // only read from
}

// toBridge makes the link called name a port of the bridge, and brings it up.
func (w network) toBridge(name string) error {
	port, err := w.LinkByName(name)
	if err != nil {
		return err
	}
	master, err := w.LinkByName(bridge)
	if err != nil {
		return err
	}
	return errors.Join(w.LinkSetMaster(port, master), w.LinkSetUp(port))
}

// routeTo adds a route to the pods of n.
func (w network) routeTo(n node) error {
	link, err := w.LinkByName(nodeLink)
	if err != nil {
		return err
	}
	_, pods, err := net.ParseCIDR(n.podCIDR())
	if err != nil {
		return err
	}
	return w.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: pods, Gw: net.ParseIP(n.ip())})
}

// join links a new node n to the nodes that are up, the first of which is the first node.
func join(n node, others []node) error {
	switchboard, err := networkOf(others[0])
	if err != nil {
		return err
	}
	defer switchboard.close()
	own, err := networkOf(n)
	if err != nil {
		return err
	}
	defer own.close()

	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridge
	switch err := switchboard.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); {
	case err == nil:
		made, err := switchboard.LinkByName(bridge)
		if err != nil {
			return err
		}
		if err := errors.Join(switchboard.LinkSetUp(made), switchboard.toBridge(nodePeer)); err != nil {
			return err
		}
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("add a bridge: %w", err)
	}

	if err := switchboard.remove(n.name()); err != nil {
		return err
	}
	attrs = netlink.NewLinkAttrs()
	attrs.Name = n.name()
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: nodeLink, PeerNamespace: netlink.NsFd(own.ns)}
	if err := switchboard.LinkAdd(veth); err != nil {
		return fmt.Errorf("add a veth pair: %w", err)
	}
	if err := switchboard.toBridge(n.name()); err != nil {
		return err
	}
	if err := configureLink(own.Handle, n.address()); err != nil {
		return err
	}
	for _, other := range others {
		w, err := networkOf(other)
		if err != nil {
			return err
		}
		err = errors.Join(w.routeTo(n), own.routeTo(other))
		w.close()
		if err != nil {
			return fmt.Errorf("routes between %s and %s: %w", n.name(), other.name(), err)
		}
	}
	return nil
}

// remove removes a link if it is still there: the kernel takes its time after the end of a node.
func (w network) remove(name string) error {
	link, err := w.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// leave removes the routes to a node that has ended.
func leave(n node, others []node) error {
	_, pods, err := net.ParseCIDR(n.podCIDR())
	if err != nil {
		return err
	}
	for _, other := range others {
		w, err := networkOf(other)
		if err != nil {
			return err
		}
		err = w.RouteDel(&netlink.Route{Dst: pods, Gw: net.ParseIP(n.ip())})
		w.close()
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove the route from %s: %w", other.name(), err)
		}
	}
	return nil
}
