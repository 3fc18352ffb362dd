package sample

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Pod is what must be known about a pod to scrape its own metrics and to judge its answers. It is
// immutable.
type Pod struct {
	Object
	UID string
	IP  string // "" while it has none
	// Ready is its condition Ready. WasReady says whether it is or ever was ready.
	Ready, WasReady bool
	// HostNetwork says that its address is that of its node.
	HostNetwork bool
	Containers  []PodContainer // with sidecars, without other init containers
	Ask         Ask            // what its annotations prometheus.io/... say
}

// PodContainer is a container of a Pod.
type PodContainer struct {
	Name    string
	Started time.Time // of the present run; zero if it does not run
	Ports   []ContainerPort
}

// ContainerPort is a port that a container declares.
type ContainerPort struct {
	Name     string // may be empty
	Number   int32
	Protocol string // TCP, UDP or SCTP
}

// String returns the port as errors show it: http=8080, 8080 or dns=53/UDP.
func (p ContainerPort) String() string {
	s := strconv.Itoa(int(p.Number))
	if p.Name != "" {
		s = p.Name + "=" + s
	}
	if p.Protocol != "TCP" {
		s += "/" + p.Protocol
	}
	return s
}

// Ask says where pods are scraped. An empty field means that it is not said.
type Ask struct {
	Port   string // a number, or the name of a port that a container declares
	Path   string // with an optional query
	Scheme string // http or https
}

// CheckPort returns an error that says what is right unless s is a valid Ask.Port.
func CheckPort(s string) error {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 65535 || strconv.Itoa(n) != s {
			return fmt.Errorf("%q is not a port: use a number from 1 to 65535, or the name of a container port", s)
		}
		return nil
	}
	// The API server's rule for names of ports, less strict about what no port can be called anyway.
	valid := s != "" && len(s) <= 15 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	if !valid {
		return fmt.Errorf("%q is not a port: use a number from 1 to 65535, or the name of a container port", Quotable(s))
	}
	return nil
}

// CheckPath returns an error that says what is right unless s is a valid Ask.Path.
func CheckPath(s string) error {
	problem := errors.New("use an absolute path such as /metrics, with an optional query, and without a host")
	u, err := url.ParseRequestURI(s)
	if err != nil || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") || strings.Contains(s, "#") ||
		len(s) > 1024 || u.Host != "" {
		return fmt.Errorf("%q is not a path: %w", Quotable(s), problem)
	}
	return nil
}

// CheckScheme returns an error that says what is right unless s is a valid Ask.Scheme.
func CheckScheme(s string) error {
	if s != "http" && s != "https" {
		return fmt.Errorf("%q is not a scheme: use http or https", Quotable(s))
	}
	return nil
}

// Quotable returns s, shortened if it is too long to be quoted in an error.
func Quotable(s string) string {
	const limit = 100
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
