// Package doctor finds out why a cluster has no resource metrics, or would soon have none. Run asks the API server, and every
// kubelet, what the server asks them, and makes a Report: each finding with its cause and its remedy.
//
// It only reads, apart from access reviews, which leave nothing behind. What the credentials do not allow is reported as unknown, and the
// rest goes on. Functions that are named judge or explain are pure: objects in, lines out. Run is done when it returns; it
// may be called from several goroutines.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubelet"
)

// Config says what to examine.
type Config struct {
	Rest    *rest.Config // for the API server
	Version string       // of this program
	// Direct asks kubelets as the server does, with the credentials of Flags.Kubelet. Otherwise the API server is asked to ask them.
	Direct bool
	// Namespace and Service are where the server is, if the APIServices do not say it or cannot be read.
	Namespace, Service string
	// Flags says what the arguments of a server's command line mean.
	Flags func(args []string) (Flags, error)
}

// Flags is what matters here of the flags of a server.
type Flags struct {
	Kubelet         kubelet.Config
	NodeSelector    string
	Resolution      time.Duration
	Timeout         time.Duration // of one kubelet
	Port            int           // that it listens on; 0: unknown
	RequestHeaderCA bool          // it has the front proxy's authority from a file
}

// examination is the state of one Run.
type examination struct {
	config Config
	api    *api
	flags  Flags
	where  serviceRef
	visits []*visit // nil: unknown
	report *Report
}

// Run examines the cluster. It ends with ctx, and what was not reached by then is unknown. The error says why nothing could be
// examined at all.
func Run(ctx context.Context, c Config) (*Report, error) {
	a, err := newAPI(c.Rest)
	if err != nil {
		return nil, err
	}
	flags, err := c.Flags(nil)
	if err != nil {
		return nil, err
	}
	server, err := a.version(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("ask the API server %s for its version: %w: check that it runs, that it can be reached from here, and the credentials", c.Rest.Host, err)
	}
	e := &examination{
		config: c, api: a, flags: flags,
		report: &Report{Schema: 1, Status: OK, Version: c.Version, Via: Proxy, Nodes: []Node{}},
	}
	if c.Direct {
		e.report.Via = Direct
	}
	ref, known := e.apiServices(ctx)
	if !known {
		ref = serviceRef{Namespace: c.Namespace, Name: c.Service}
	}
	ref.Port = cmp.Or(ref.Port, 443)
	e.where = ref
	e.access(ctx, ref.Namespace, e.workload(ctx, ref))

	// Served metrics are compared with the nodes, so those come first.
	visits, err := e.listNodes(ctx)
	if err != nil {
		e.report.add(unanswered(checkNodes, "the nodes", err, "list nodes"))
	} else {
		e.visits = append([]*visit{}, visits...)
		e.nodes(ctx, visits)
	}
	e.aggregation(ctx)
	e.autoscalers(ctx)
	e.clocks()
	// First, because it is what to compare everything else with, but it needs the nodes.
	versions := judgeVersions(c.Version, server.GitVersion, visits)
	e.report.Status = worse(e.report.Status, versions.Status)
	e.report.Checks = slices.Insert(e.report.Checks, 0, versions)
	return e.report, nil
}

// readFlags makes the flags those of the server in pod, where they can be understood.
func (e *examination) readFlags(pod *corev1.Pod) {
	flags, err := e.flagsOf(pod)
	if err != nil {
		e.report.add(Line{
			Check: checkPods, Status: Warning, Message: "the arguments of pod " + pod.Namespace + "/" + pod.Name + " cannot be understood, so nodes are asked as this command's own flags say",
			Cause: err.Error(), Remedy: "correct the arguments, or give this command the --kubelet-* flags of the server",
		})
	}
	e.flags = flags
}

// flagsOf are those of the server in pod, which during a roll-out need not be those of another one. With an error they are as far as
// they are known otherwise.
func (e *examination) flagsOf(pod *corev1.Pod) (Flags, error) {
	args := commandLine(pod)
	flags, err := e.config.Flags(args)
	if err != nil {
		flags = e.flags
	}
	if err != nil || len(args) == 0 {
		flags.Port = 0 // the image may have its own
	}
	return flags, err
}

func (e *examination) clocks() {
	const tolerance = 5 * time.Second
	ahead, known := e.api.clock.skew()
	if !known || ahead.Abs() <= tolerance {
		return
	}
	e.report.add(Line{
		Check: checkClock, Status: Warning, Message: fmt.Sprintf("the clock here and that of the API server differ by %v", ahead.Abs().Round(time.Second)),
		Cause: "one of them is wrong; ages and timestamps above are by the API server's", Remedy: "synchronise the clocks (NTP)",
	})
}

// oldestKubelet is the minor release from which on /metrics/resource is there and stable enough.
const oldestKubelet = 19

func judgeVersions(own, server string, visits []*visit) Line {
	var versions, old []string
	count := map[string]int{}
	for _, v := range visits {
		if count[v.KubeletVersion]++; count[v.KubeletVersion] == 1 {
			versions = append(versions, v.KubeletVersion)
		}
		if minor, ok := minorOf(v.KubeletVersion); ok && minor < oldestKubelet {
			old = append(old, v.Name)
		}
	}
	slices.Sort(versions)
	for i, v := range versions {
		versions[i] = fmt.Sprintf("%s (%d)", cmp.Or(v, "of unknown version"), count[v])
	}
	l := Line{Check: checkVersions, Status: OK, Message: fmt.Sprintf("metrics-server %s here, API server %s, kubelets %s", own, cmp.Or(server, "unknown"), cmp.Or(strings.Join(versions, ", "), "unknown"))}
	if len(old) > 0 {
		slices.Sort(old)
		l.Status, l.Nodes = Warning, old
		l.Cause = fmt.Sprintf("the kubelets of %s are older than 1.%d and may have no /metrics/resource", some(old), oldestKubelet)
		l.Remedy = "update the kubelets"
	}
	return l
}

// minorOf returns the minor number of a version such as v1.37.2.
func minorOf(version string) (int, bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) != 3 || parts[0] != "v1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil
}
