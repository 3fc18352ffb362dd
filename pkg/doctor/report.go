package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Status is what a check came to.
type Status string

// The statuses, from the best to the worst.
const (
	OK      Status = "ok"
	Unknown Status = "unknown" // could not be checked; Remedy says what is needed
	Warning Status = "warning" // works, but not as it should, or not for long
	Problem Status = "problem" // something is not served because of this
)

// Line is one finding.
type Line struct {
	Check   string   `json:"check"`
	Status  Status   `json:"status"`
	Message string   `json:"message"`
	Cause   string   `json:"cause,omitempty"`
	Remedy  string   `json:"remedy,omitempty"`
	Nodes   []string `json:"nodes,omitempty"` // that it is of, sorted; empty if it is not of nodes
}

// The names of the checks.
const (
	checkVersions    = "versions"
	checkClock       = "clock"
	checkAPIService  = "apiservice"
	checkService     = "service"
	checkPods        = "pods"
	checkAggregation = "aggregation"
	checkAccess      = "access"
	checkNodes       = "nodes"
	checkServed      = "served"
	checkAutoscalers = "autoscalers"
)

// Node is what is known of one node.
type Node struct {
	Name           string       `json:"name"`
	Status         Status       `json:"status"` // the worst of its findings
	KubeletVersion string       `json:"kubeletVersion,omitempty"`
	Addresses      []string     `json:"addresses,omitempty"` // that the server tries, in its order
	Address        string       `json:"address,omitempty"`   // that answered, if it was asked directly
	Certificate    *Certificate `json:"certificate,omitempty"`
	Containers     int          `json:"containers"` // with CPU and memory
	NewestSample   *time.Time   `json:"newestSample,omitempty"`
	Error          string       `json:"error,omitempty"`
}

// Certificate is a kubelet's serving certificate.
type Certificate struct {
	Issuer   string    `json:"issuer"`
	Names    []string  `json:"names"` // addresses too
	NotAfter time.Time `json:"notAfter"`
	Trusted  bool      `json:"trusted"` // by the authority in use; false too if it was not verified
}

// The ways to ask kubelets.
const (
	Direct = "direct" // as the server does
	Proxy  = "proxy"  // through the API server, which has its own trust, network and credentials
)

// Report is the outcome of Run. Its JSON is documented in docs/doctor.md and only ever grows.
type Report struct {
	Schema  int    `json:"schema"` // 1
	Status  Status `json:"status"` // the worst of the checks
	Version string `json:"version"`
	Via     string `json:"via"` // Direct or Proxy
	Checks  []Line `json:"checks"`
	Nodes   []Node `json:"nodes"`
}

// ExitCode is 1 if there is a problem, else 0.
func (r *Report) ExitCode() int {
	if r.Status == Problem {
		return 1
	}
	return 0
}

// WriteJSON writes r for machines.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes r for people: a line for each finding, and cause and remedy below it.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	count := map[Status]int{}
	for _, l := range r.Checks {
		count[l.Status]++
		fmt.Fprintf(&b, "%-8s %-12s %s\n", l.Status, l.Check, oneLine(l.Message))
		for _, more := range []struct{ what, text string }{{"cause", l.Cause}, {"remedy", l.Remedy}} {
			if more.text != "" {
				fmt.Fprintf(&b, "%-21s %s: %s\n", "", more.what, oneLine(more.text))
			}
		}
	}
	fmt.Fprintf(&b, "\n%s, %s, %d unknown, %d ok\n", plural(count[Problem], "problem"), plural(count[Warning], "warning"), count[Unknown], count[OK])
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine is s without what would end a line or confuse a terminal: much of it is said by others.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (r *Report) add(lines ...Line) {
	for _, l := range lines {
		r.Status = worse(r.Status, l.Status)
	}
	r.Checks = append(r.Checks, lines...)
}

var severity = []Status{OK, Unknown, Warning, Problem}

func worse(a, b Status) Status {
	if slices.Index(severity, b) > slices.Index(severity, a) {
		return b
	}
	return a
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// some lists names, but not more than three.
func some(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
