package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
)

// Status is the result of a check.
type Status string

// The statuses, from the best to the worst.
const (
	OK      Status = "ok"
	Unknown Status = "unknown" // it could not be checked; Remedy says what is needed
	Warning Status = "warning" // it works, but not as it should, or not for long
	Problem Status = "problem" // something is not served because of it
)

// Line is one finding.
type Line struct {
	Check   string   `json:"check"`
	Status  Status   `json:"status"`
	Message string   `json:"message"`
	Cause   string   `json:"cause,omitempty"`
	Remedy  string   `json:"remedy,omitempty"`
	Nodes   []string `json:"nodes,omitempty"`   // the nodes concerned, sorted; empty if it does not concern nodes
	Objects []Object `json:"objects,omitempty"` // the autoscalers or the pod of the server concerned, sorted
}

// Object names an object of the cluster.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Autoscaler returns the Object of a HorizontalPodAutoscaler.
func Autoscaler(namespace, name string) Object {
	return Object{Kind: "HorizontalPodAutoscaler", Namespace: namespace, Name: name}
}

// aboutPod returns l as a finding about a pod of the server.
func (l Line) aboutPod(pod *corev1.Pod) Line {
	l.Objects = []Object{{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}}
	return l
}

func (o Object) compare(p Object) int {
	return cmp.Or(strings.Compare(o.Kind, p.Kind), strings.Compare(o.Namespace, p.Namespace),
		strings.Compare(o.Name, p.Name))
}

// NewLine returns a finding with its cause and its remedy.
func NewLine(check string, status Status, message, cause, remedy string) Line {
	return Line{Check: check, Status: status, Message: message, Cause: cause, Remedy: remedy}
}

// OKLine returns a finding that something is as it should be.
func OKLine(check, message string) Line { return Line{Check: check, Status: OK, Message: message} }

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

// Node is what is known about one node.
type Node struct {
	Name           string       `json:"name"`
	Status         Status       `json:"status"` // the worst of its findings
	KubeletVersion string       `json:"kubeletVersion,omitempty"`
	Addresses      []string     `json:"addresses,omitempty"` // in the order in which the server tries them
	Address        string       `json:"address,omitempty"`   // the one that answered, if asked directly
	Certificate    *Certificate `json:"certificate,omitempty"`
	Containers     int          `json:"containers"` // that have both CPU and memory
	NewestSample   *time.Time   `json:"newestSample,omitempty"`
	Error          string       `json:"error,omitempty"`
}

// Certificate is a kubelet's serving certificate.
type Certificate struct {
	Issuer   string    `json:"issuer"`
	Names    []string  `json:"names"` // DNS names and addresses
	NotAfter time.Time `json:"notAfter"`
	Trusted  bool      `json:"trusted"` // it was verified
}

// The ways to ask kubelets.
const (
	Direct = "direct" // as the server does
	Proxy  = "proxy"  // through the API server, which uses its own network, credentials and authorities
)

// Report is the result of Run. Its JSON is documented in docs/doctor.md; fields are only ever
// added.
type Report struct {
	Schema  int    `json:"schema"` // 1
	Status  Status `json:"status"` // the worst of Checks
	Version string `json:"version"`
	Via     string `json:"via"` // Direct or Proxy
	Checks  []Line `json:"checks"`
	Nodes   []Node `json:"nodes"`
}

// ExitCode is 1 if there is a problem, else 0.
func (r *Report) ExitCode() int { return r.Status.ExitCode() }

// ExitCode is the exit code of a command whose worst finding has status s: 1 for a problem, else 0.
func (s Status) ExitCode() int {
	if s == Problem {
		return 1
	}
	return 0
}

// WriteJSON writes a report for machines.
func WriteJSON(w io.Writer, report any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(report)
}

// WriteText writes r for people: a line for each finding, with its cause and its remedy below.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	WriteLines(&b, r.Checks)
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteLines writes findings for people, and how many there are of each status.
func WriteLines(b *strings.Builder, lines []Line) {
	width := 12
	for _, l := range lines {
		width = max(width, len(l.Check))
	}
	count := map[Status]int{}
	for _, l := range lines {
		count[l.Status]++
		fmt.Fprintf(b, "%-8s %-*s %s\n", l.Status, width, OneLine(l.Check), OneLine(l.Message))
		for _, more := range []struct{ what, text string }{{"cause", l.Cause}, {"remedy", l.Remedy}} {
			if more.text != "" {
				fmt.Fprintf(b, "%-*s %s: %s\n", width+9, "", more.what, OneLine(more.text))
			}
		}
	}
	fmt.Fprintf(b, "\n%s, %s, %d unknown, %d ok\n",
		Plural(count[Problem], "problem"), Plural(count[Warning], "warning"), count[Unknown], count[OK])
}

// OneLine replaces control characters in s, as much of the text comes from other programs.
func OneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

func (r *Report) add(lines ...Line) {
	for _, l := range lines {
		r.Status = Worse(r.Status, l.Status)
	}
	r.Checks = append(r.Checks, lines...)
}

var severity = []Status{OK, Unknown, Warning, Problem}

// Worse returns the worse of two statuses.
func Worse(a, b Status) Status {
	if slices.Index(severity, b) > slices.Index(severity, a) {
		return b
	}
	return a
}

// Plural returns a number and its noun.
func Plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Some lists at most three names, and how many more there are.
func Some(names []string) string {
	const most = 3
	if more := len(names) - most; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), more)
	}
	return strings.Join(names, ", ")
}
