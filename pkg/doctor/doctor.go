// Package doctor finds out why a cluster has no resource metrics, or will soon have none. Run sends
// the API server and every kubelet the requests that the server sends them, and returns a Report:
// findings, each with its cause and its remedy.
//
// Run changes nothing: besides reads it only creates access reviews and, if it asks kubelets
// directly, requests a token for them. The API server stores neither. What the credentials do not
// permit is reported as unknown, and the other checks go on. Functions whose names begin with judge
// or explain are pure: objects in, lines out. Run leaves no goroutine behind and may be called from
// several goroutines.
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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
)

// Config says what to examine.
type Config struct {
	Rest    *rest.Config // for the API server
	InPod   bool         // Rest has the token of the pod's service account
	Version string       // of this program
	// Direct asks kubelets as the server does, with the credentials of Flags.Kubelet. Otherwise
	// they are asked through the API server.
	Direct bool
	// Namespace and Service locate the server if the APIServices do not or cannot be read.
	Namespace, Service string
	// Flags parses the arguments of a server's command line.
	Flags func(args []string) (Flags, error)
}

// Flags has the flags of a server that matter here.
type Flags struct {
	Kubelet         kubelet.Config
	NodeSelector    string
	Resolution      time.Duration
	Timeout         time.Duration // for one kubelet
	Port            int           // on which the server listens; 0 if unknown
	OpenPaths       []string      // served without authorization; a trailing star matches any suffix
	RequestHeaderCA bool          // the server reads the front proxy's authority from a file
}

// examination is the state of one Run.
type examination struct {
	config Config
	api    *api
	flags  Flags
	where  serviceRef
	// guessed says that where is a guess, because the APIServices could not be read.
	guessed bool
	// elsewhere says that the guess is wrong: the Service does not exist.
	elsewhere bool
	// foreign says that the Service leads to pods that run a program other than metrics-server.
	foreign bool
	// incumbent says that they run kubernetes-sigs/metrics-server, as far as the image's tag tells.
	incumbent bool
	// tokensOf is the account whose tokens the server shows to kubelets; without a name it shows
	// them its own credentials.
	tokensOf types.NamespacedName
	own      map[string]string // by address and port: which pod or endpoint of the server listens there
	visits   []*visit          // nil if the nodes are unknown
	lacking  map[string]bool   // namespaces with running pods that lack metrics; nil if that is unknown
	report   *Report
}

// Run examines the cluster until ctx ends; what was not checked by then is reported as unknown. It
// returns an error only if nothing could be checked.
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
	if apierrors.IsUnauthorized(err) {
		remedy := "renew them in the kubeconfig"
		if c.InPod {
			remedy = kubeapi.RemedyOldToken
		}
		return nil, fmt.Errorf("ask the API server %s for its version: %w: it does not accept the credentials: %s",
			c.Rest.Host, err, remedy)
	}
	if err != nil && !apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("ask the API server %s for its version: %w: %s", c.Rest.Host, err, RemedyNoAnswer(err))
	}
	e := &examination{
		config: c, api: a, flags: flags, own: map[string]string{},
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

	// The check served compares its metrics with the nodes.
	visits, err := e.listNodes(ctx)
	if err != nil {
		e.report.add(Unanswered(checkNodes, "nodes cannot be checked", err, "list nodes"))
	} else {
		e.visits = append([]*visit{}, visits...)
		probing, stop := leaveTime(ctx)
		e.nodes(probing, visits)
		stop()
	}
	e.aggregation(ctx)
	e.autoscalers(ctx)
	e.clocks()
	// This line comes first because it helps to read the others, but it needs the nodes.
	versions := judgeVersions(c.Version, server.GitVersion, visits)
	e.report.Status = Worse(e.report.Status, versions.Status)
	e.report.Checks = slices.Insert(e.report.Checks, 0, versions)
	return e.report, nil
}

// leaveTime returns a context that ends after three quarters of the remaining time of ctx: kubelets that hang, which
// may be thousands, must not use up the time of the checks that follow.
func leaveTime(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/4))
}

// readFlags sets the flags to those of the server in pod, as far as they can be parsed.
func (e *examination) readFlags(pod *corev1.Pod) {
	flags, unknown, err := e.flagsOf(pod)
	name := "pod " + pod.Namespace + "/" + pod.Name
	if pod.UID == "" { // it does not exist
		name = "Deployment " + pod.Namespace + "/" + pod.Name
	}
	add := func(l Line) {
		if pod.UID != "" {
			l = l.aboutPod(pod)
		}
		e.report.add(l)
	}
	if err != nil {
		add(NewLine(checkPods, Warning,
			"the arguments of "+name+" cannot be parsed, so kubelets are asked with this command's own flags",
			err.Error(), "correct the arguments, or give this command the --kubelet-* flags of the server"))
	}
	if len(unknown) > 0 {
		add(NewLine(checkPods, Unknown, "some arguments of "+name+" are unknown: "+strings.Join(unknown, " "),
			"their values are in a ConfigMap, a Secret or a shell's environment, which are not read",
			"give this command those of them that are --kubelet-* flags"))
	}
	e.flags = flags
}

// flagsOf returns the flags of the server in pod, which may differ between pods during a roll-out,
// and the arguments whose values are unknown. If the arguments cannot be parsed, it returns an
// error and the flags known so far.
func (e *examination) flagsOf(pod *corev1.Pod) (flags Flags, unknown []string, err error) {
	args, unknown := commandLine(pod)
	flags, err = e.config.Flags(args)
	if err != nil {
		flags = e.flags
	}
	hidden := slices.ContainsFunc(unknown, func(a string) bool { return strings.Contains(a, "--secure-port") })
	if err != nil || len(args) == 0 || hidden {
		flags.Port = 0 // the image may have its own arguments
	}
	return flags, unknown, err
}

func (e *examination) clocks() {
	const tolerance = 5 * time.Second
	ahead, known := e.api.clock.skew()
	if !known || ahead.Abs() <= tolerance {
		return
	}
	side := "ahead of"
	if ahead < 0 {
		side = "behind"
	}
	e.report.add(NewLine(checkClock, Warning, fmt.Sprintf("the API server's clock is %v %s the local clock",
		ahead.Abs().Round(time.Second), side),
		"one of the two clocks is wrong; the ages above are measured with the API server's clock",
		"synchronize the clocks (NTP)"))
}

// oldestKubelet is the first minor release with a usable /metrics/resource.
const oldestKubelet = 19

func judgeVersions(own, server string, visits []*visit) Line {
	var versions, old []string
	count := map[string]int{}
	for _, v := range visits {
		if count[v.KubeletVersion]++; count[v.KubeletVersion] == 1 {
			versions = append(versions, v.KubeletVersion)
		}
		if minor, ok := minorOf(v.KubeletVersion); ok && minor < oldestKubelet && !v.endpoint.Virtual {
			old = append(old, v.Name)
		}
	}
	slices.Sort(versions)
	for i, v := range versions {
		versions[i] = fmt.Sprintf("%s (%d)", cmp.Or(v, "of unknown version"), count[v])
	}
	l := OKLine(checkVersions, fmt.Sprintf("metrics-server %s here, API server %s, kubelets %s",
		own, cmp.Or(server, "unknown"), cmp.Or(strings.Join(versions, ", "), "unknown")))
	if len(old) > 0 {
		slices.Sort(old)
		l.Status, l.Nodes = Warning, old
		l.Cause = fmt.Sprintf("the kubelets of %s are older than 1.%d and may have no /metrics/resource",
			Some(old), oldestKubelet)
		l.Remedy = "update the kubelets"
	}
	return l
}

// minorOf returns the minor release of a version such as v1.37.2.
func minorOf(version string) (int, bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) != 3 || parts[0] != "v1" {
		return 0, false
	}
	n, err := strconv.Atoi(parts[1])
	return n, err == nil
}
