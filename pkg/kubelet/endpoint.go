package kubelet

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// PathAnnotation is the annotation of a node that says at which path its metrics are.
const PathAnnotation = "metrics.k8s.io/resource-metrics-path"

const defaultPath = "/metrics/resource"

// Endpoint is where the kubelet of a node may be found.
type Endpoint struct {
	Node      string
	Addresses []Address // as in the node's status
	Port      int32     // as in the node's status; 0: none
	Path      string    // value of PathAnnotation; "": /metrics/resource
}

// Address is one address of a node.
type Address struct {
	Type    string // InternalIP, Hostname, ...
	Address string
}

// target is an Endpoint made ready for requests. It is immutable.
type target struct {
	node  string
	addrs []string // host:port, the preferred one first; empty if err is not nil
	path  *url.URL // path and query only
	err   error    // why it cannot be scraped at all
}

func (s *Clients) target(e *Endpoint) *target {
	t := &target{node: e.Node, path: &url.URL{Path: defaultPath}}
	if e.Path != "" {
		p, err := parsePath(e.Path)
		if err != nil {
			t.err = err
			return t
		}
		t.path = p
	}

	port := s.portOf(e)
	var present []string
	for _, a := range e.Addresses {
		if !slices.Contains(present, a.Type) {
			present = append(present, a.Type)
		}
	}
	for _, typ := range s.config.AddressTypes {
		for _, a := range e.Addresses {
			if a.Type != typ || a.Address == "" {
				continue
			}
			// A node's host name is often its IP address once more.
			if addr := net.JoinHostPort(a.Address, port); !slices.Contains(t.addrs, addr) {
				t.addrs = append(t.addrs, addr)
			}
		}
	}
	if len(t.addrs) == 0 {
		t.err = &noAddressError{asked: s.config.AddressTypes, present: present}
	}
	return t
}

// parsePath parses the value of PathAnnotation. Whoever may annotate a node must not send our
// credentials to another host.
func parsePath(path string) (*url.URL, error) {
	u, err := url.ParseRequestURI(path)
	switch {
	case err != nil:
		return nil, &pathError{path, "is not a URL path"}
	case u.Scheme != "" || u.Host != "" || u.User != nil || strings.HasPrefix(path, "//"):
		return nil, &pathError{path, "names a scheme or a host"}
	case !strings.HasPrefix(path, "/"):
		return nil, &pathError{path, "does not begin with a slash"}
	case strings.Contains(path, "#"):
		return nil, &pathError{path, "has a fragment"}
	}
	return &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, nil
}

// url is where t's kubelet is at addr.
func (t *target) url(scheme, addr string) *url.URL {
	u := *t.path
	u.Scheme, u.Host = scheme, addr
	return &u
}

type pathError struct{ path, why string }

func (e *pathError) Error() string {
	return fmt.Sprintf("annotation %s is %q, which %s", PathAnnotation, e.path, e.why)
}

type noAddressError struct{ asked, present []string }

func (e *noAddressError) Error() string {
	if len(e.present) == 0 {
		return "the node has no address in its status"
	}
	return fmt.Sprintf("the node has only addresses of type %s, none of %s",
		strings.Join(e.present, ", "), strings.Join(e.asked, ", "))
}
