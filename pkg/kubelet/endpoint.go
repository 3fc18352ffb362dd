package kubelet

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"metrics-server/pkg/kubeapi"
)

// Endpoint is where the kubelet of a node may be found.
type Endpoint struct {
	Node      string
	Addresses []Address // as in the node's status
	Port      int32     // as in the node's status; 0: none
	Path      string    // value of kubeapi.PathAnnotation; "": kubeapi.KubeletPath
	Virtual   bool      // see IsVirtual
}

// IsVirtual reports whether a node is one of virtual-kubelet, judged by its kubelet version and its
// labels. Behind such a node there is no machine, and often there are no metrics.
func IsVirtual(version string, labels map[string]string) bool {
	if labels["type"] == "virtual-kubelet" || strings.HasPrefix(version, "vk-") || strings.Contains(version, "-vk-") {
		return true
	}
	for key := range labels {
		if strings.HasPrefix(key, "virtual-kubelet.io/") {
			return true
		}
	}
	return false
}

// Address is one address of a node.
type Address struct {
	Type    string // InternalIP, Hostname, ...
	Address string
}

// target is an Endpoint prepared for requests. It is immutable.
type target struct {
	node  string
	addrs []string // host:port, the preferred one first; empty if err is not nil
	url   url.URL  // without a host
	err   error    // why the node cannot be scraped at all

	virtual bool
}

func (s *Clients) target(e *Endpoint) *target {
	t := &target{node: e.Node, virtual: e.Virtual}
	path, err := ParsePath(e.Path)
	if err != nil {
		t.err = err
		return t
	}
	t.url = *path
	t.url.Scheme = s.scheme

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

// Places returns where the kubelet at e is, as host:port and path: nodes that share a place have the same kubelet. The
// first place has the preferred address. If that is a name, the internal IP addresses follow, because one machine may
// have several names.
func (s *Clients) Places(e Endpoint) []string {
	t := s.target(&e)
	if t.err != nil {
		return nil
	}
	path := t.url.RequestURI()
	places := []string{t.addrs[0] + path}
	host, port, _ := net.SplitHostPort(t.addrs[0])
	if net.ParseIP(host) != nil {
		return places
	}
	for _, a := range e.Addresses {
		place := net.JoinHostPort(a.Address, port) + path
		if a.Type == "InternalIP" && !slices.Contains(places, place) {
			places = append(places, place)
		}
	}
	return places
}

// ParsePath parses the value of kubeapi.PathAnnotation: a path, with or without a leading slash, and an
// optional query. Surrounding blanks are ignored, and an empty value means the default. Users who
// may annotate nodes must be able neither to send this server's credentials to another host, nor to
// hide what is requested.
func ParsePath(annotation string) (*url.URL, error) {
	path := strings.TrimSpace(annotation)
	if path == "" {
		path = kubeapi.KubeletPath
	}
	first, _, _ := strings.Cut(path, "/")
	switch {
	case strings.HasPrefix(path, "//"), strings.Contains(first, ":"):
		return nil, &PathError{annotation, "names a scheme or a host"}
	case strings.HasPrefix(path, "?"):
		return nil, &PathError{annotation, "has a query and no path"}
	case strings.Contains(path, "#"):
		return nil, &PathError{annotation, "has a fragment"}
	}
	if first != "" {
		path = "/" + path
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, &PathError{annotation, "is not a URL path"}
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return nil, &PathError{annotation, `has "." or ".." as a part`}
		}
	}
	return &url.URL{Path: u.Path, RawPath: u.RawPath, RawQuery: u.RawQuery}, nil
}

// PathError says why a value of kubeapi.PathAnnotation is refused.
type PathError struct{ path, problem string }

func (e *PathError) Error() string {
	return fmt.Sprintf("annotation %s is %q, which %s", kubeapi.PathAnnotation, e.path, e.problem)
}

type noAddressError struct{ asked, present []string }

func (e *noAddressError) Error() string {
	if len(e.present) == 0 {
		return "the node has no address in its status"
	}
	return fmt.Sprintf("the node has only addresses of type %s, none of %s",
		strings.Join(e.present, ", "), strings.Join(e.asked, ", "))
}
