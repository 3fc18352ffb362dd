package doctor

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// summarize returns the lines for all findings, the worst first.
func (e *examination) summarize(visits []*visit) []Line {
	type key struct {
		status                 Status
		summary, cause, remedy string
	}
	sets := map[key]*set{}
	var found []*set
	add := func(f finding, node string) {
		k := key{f.status, f.summary, f.cause, f.remedy}
		s := sets[k]
		if s == nil {
			s = &set{finding: f}
			sets[k] = s
			found = append(found, s)
		}
		s.add(node, f.detail)
	}
	answered, unasked := 0, 0
	for _, v := range visits {
		fails := func(f finding) bool { return f.status == Problem }
		switch {
		case v.Error == "" && v.NewestSample != nil:
			answered++
		case !slices.ContainsFunc(v.findings, fails): // for lack of a right or of time
			unasked++
		}
		if v.Address != "" && v.Address != v.Addresses[0] {
			add(finding{
				status: Warning, summary: "the kubelet answers, but not at the preferred address",
				cause:  "the preferred address cannot be resolved or reached from here, so the next one is used",
				remedy: "in --kubelet-preferred-address-types, put the type of the address that answers first",
				detail: "at " + v.Address + ", not at " + v.Addresses[0],
			}, v.Name)
		}
		for _, f := range v.findings {
			add(f, v.Name)
		}
	}
	var all []*set
	for _, s := range found {
		slices.Sort(s.nodes)
		all = append(all, s.byCause()...)
	}
	slices.SortStableFunc(all, func(a, b *set) int {
		return cmp.Or(slices.Index(severity, b.status)-slices.Index(severity, a.status), len(b.nodes)-len(a.nodes))
	})

	lines := []Line{e.way(answered, unasked, len(visits))}
	switch {
	case e.config.Direct:
		lines = append(lines, e.certificates(visits)...)
	case !e.foreign: // another program might not ask kubelets at all
		remedy := fmt.Sprintf("kubectl -n %s exec service/%s -- /metrics-server doctor", e.where.Namespace, e.where.Name)
		if e.incumbent {
			remedy = "run this program in a pod of the cluster: metrics-server doctor --kubelets=direct"
		}
		lines = append(lines, NewLine(checkNodes, Unknown,
			"TLS, network and rights between the server's pod and the kubelets were not checked",
			"the kubelets were asked through the API server", remedy))
	}
	for _, s := range all {
		lines = append(lines, s.line(len(visits)))
	}
	return lines
}

// way returns the line that says how kubelets were asked, and how many answered. unasked of the others could not be
// asked.
func (e *examination) way(answered, unasked, all int) Line {
	k := e.flags.Kubelet
	how := "through the API server (nodes/proxy)"
	if e.config.Direct {
		port := fmt.Sprintf("port %d", k.Port)
		if k.UseNodeStatusPort {
			port = "the port in the node's status"
		}
		how = fmt.Sprintf("directly, at addresses of type %s and %s", strings.Join(k.AddressTypes, ", "), port)
	}
	l := OKLine(checkNodes, fmt.Sprintf("%d of %d kubelets give samples, asked %s", answered, all, how))
	switch {
	case answered+unasked < all:
		l.Status = Warning
		l.Cause, l.Remedy = "other kubelets fail or give no usable sample", "see the next lines"
	case unasked > 0:
		l.Status = Unknown
		l.Cause, l.Remedy = "the other kubelets could not be asked", "see the next lines"
	}
	return l
}

// certificates returns the lines that say how the kubelets' certificates are verified.
func (e *examination) certificates(visits []*visit) []Line {
	k := e.flags.Kubelet
	switch {
	case k.PlainHTTP:
		return []Line{NewLine(checkNodes, Warning, "kubelets are asked over plain HTTP, without credentials",
			"--deprecated-kubelet-completely-insecure is set",
			"remove the flag: kubelets are then asked over TLS, with credentials")}
	case k.Insecure:
		return []Line{NewLine(checkNodes, Warning, "the kubelets' certificates are not verified",
			"--kubelet-insecure-tls is set",
			"set serverTLSBootstrap in the kubelets' configuration, approve their requests (kubectl get csr), and "+
				"give --kubelet-certificate-authority instead")}
	}
	issuers := map[string]bool{}
	var first *Certificate
	for _, v := range visits {
		if c := v.Certificate; c != nil && c.Trusted {
			issuers[c.Issuer] = true
			if first == nil || c.NotAfter.Before(first.NotAfter) {
				first = c
			}
		}
	}
	if first == nil {
		return nil
	}
	return []Line{OKLine(checkNodes,
		fmt.Sprintf("the kubelets' certificates are verified: %s, the first certificate expires on %s",
			Plural(len(issuers), "issuer"), first.NotAfter.Format(time.DateOnly)))}
}

// set is a finding and the nodes that have it.
type set struct {
	finding
	nodes   []string
	details map[string]string // by node
}

func (s *set) add(node, detail string) {
	if s.details == nil {
		s.details = map[string]string{}
	}
	s.nodes = append(s.nodes, node)
	s.details[node] = detail
}

// maxKinds is how many lines the causes of one finding may take.
const maxKinds = 5

// byCause splits s by the causes in its details, ignoring what differs from node to node, so that
// no node is reported with the cause of another one.
func (s *set) byCause() []*set {
	if !s.detailIsCause {
		return []*set{s}
	}
	kinds := map[string]*set{}
	var split []*set
	for _, node := range s.nodes {
		kind := kindOf(s.details[node], node)
		if kinds[kind] == nil {
			kinds[kind] = &set{finding: s.finding}
			split = append(split, kinds[kind])
		}
		kinds[kind].add(node, s.details[node])
	}
	slices.SortStableFunc(split, func(a, b *set) int { return len(b.nodes) - len(a.nodes) })
	if len(split) > maxKinds {
		rest := &set{finding: s.finding}
		rest.summary += ", for other reasons"
		for _, other := range split[maxKinds-1:] {
			for _, node := range other.nodes {
				rest.add(node, other.details[node])
			}
		}
		split = append(split[:maxKinds-1], rest)
	}
	return split
}

// variable matches what may differ between two texts of the same kind: addresses, times, names with
// numbers, amounts.
var variable = regexp.MustCompile(`[\w.:\[\]/+-]*\d[\w.:\[\]/+-]{3,}|[\w.:\[\]/+-]{3,}\d[\w.:\[\]/+-]*`)

// kindOf returns a node's detail without the parts that are specific to the node.
func kindOf(detail, node string) string {
	if i := strings.Index(detail, certificateBy); i >= 0 { // each kubelet has its own certificate
		detail = detail[:i]
	}
	own := regexp.MustCompile(`\b` + regexp.QuoteMeta(node) + `\b`)
	return variable.ReplaceAllString(own.ReplaceAllString(detail, "#"), "#")
}

func (s *set) line(all int) Line {
	l := Line{Check: checkNodes, Status: s.status, Cause: s.cause, Remedy: s.remedy, Nodes: s.nodes}
	names := s.nodes
	first := s.details[s.nodes[0]]
	switch {
	case s.detailIsCause && len(s.nodes) > 1:
		l.Cause = "for example " + s.nodes[0] + ": " + first
	case s.detailIsCause:
		l.Cause = first
	case first != "":
		names = nil
		for _, node := range s.nodes {
			names = append(names, node+" ("+s.details[node]+")")
		}
	}
	l.Message = fmt.Sprintf("%d of %s: %s: %s", len(s.nodes), Plural(all, "node"), s.summary, Some(names))
	return l
}
