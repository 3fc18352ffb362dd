package customserver

import (
	"fmt"
	"maps"
	"math"
	"runtime/debug"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/fairshare"
	"metrics-server/pkg/sample"
)

// Limits on what the autoscalers of all namespaces can make the server scrape and keep. The memory
// limit of the container in deploy/ also covers the pages that are being read (podtarget), the
// evaluations (appmetrics) and the caches of objects. docs/custom-metrics.md has the sum.
const (
	// maxEndpoints is how many endpoints are scraped at most. It is lower if the memory limit of
	// the process has less than endpointMemory for each, or if filesNum/filesDen of its limit on
	// open files are fewer.
	maxEndpoints       = 100_000
	endpointMemory     = 16 << 10
	filesNum, filesDen = 3, 4
	// maxMemory is how many bytes of series, compiled expressions and errors of pods that cannot be scraped are
	// kept, unless 1/memoryPart of the memory limit of the process is less.
	maxMemory  = 256 << 20
	memoryPart = 4

	// fairPart limits what one namespace may have to this multiple of what is still free: about three
	// quarters of the limit at most.
	fairPart = 3

	// tlsEndpoints is how many endpoints an endpoint with https counts as, because its connection
	// takes about as much memory as that many plain ones.
	tlsEndpoints = 4
)

// Limits on what one pod costs. Without them, autoscalers that differ only in annotations could
// multiply its cost. The endpoints of the administrator's file are exempt from the first one; the second one applies to
// the metrics of the pod's own namespace, and separately to the selectors that autoscalers of all namespaces add to
// metrics of the file.
const (
	maxEndpointsOfPod    = 5
	maxMetricsOfEndpoint = 50
)

// maxInFlight is how many scrapes of each of the two schedulers may be in flight to pods that
// answer; half as many more may be in flight to pods that fail. Each takes 128 KiB while a page
// arrives.
const maxInFlight = 512

// turnPage is the size from which on one page of a namespace is parsed at a time, as with pages that are costly to
// match. Otherwise pods with such pages could keep all CPUs busy.
const turnPage = 64 << 10

// quietAfter is how long after the last refusal a namespace no longer counts as limited.
const quietAfter = 5 * time.Minute

// replaceWithin is the minimum time for which a namespace that has more than its share may reclaim what it gave back;
// the maximum is twice that. Rollouts and deletions that are undone need it.
const replaceWithin = 5 * time.Minute

// limit is a kind of limit that namespaces share.
type limit string

const (
	endpointLimit limit = "endpoints"
	memoryLimit   limit = "memory"
)

// limits are the limits that namespaces share.
type limits struct {
	endpoints, memory *fairshare.Pool

	mu      sync.Mutex // guards the fields that follow
	refused map[refusal]time.Time
	purged  time.Time // when refused was last purged
}

type refusal struct {
	namespace string
	limit     limit
}

func newLimits() *limits {
	ofMemoryLimit := func(most, part int64) func() int64 {
		return func() int64 {
			if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
				return min(most, limit/part)
			}
			return most
		}
	}
	return &limits{
		endpoints: newPool(ofMemoryLimit(endpointsByFiles(), endpointMemory)),
		memory:    newPool(ofMemoryLimit(maxMemory, memoryPart)),
		refused:   map[refusal]time.Time{},
	}
}

func newPool(limit func() int64) *fairshare.Pool {
	return fairshare.New(fairPart, limit).Remember(replaceWithin)
}

func (l *limits) pool(of limit) *fairshare.Pool {
	if of == memoryLimit {
		return l.memory
	}
	return l.endpoints
}

// take takes n of a limit for a namespace, or returns an error that names the namespace. The memory also has the shares
// definition.SelectorsOwner, and "" of metrics of the administrator's file that come from a backend.
func (l *limits) take(of limit, namespace string, n int64) error {
	if l.pool(of).Take(namespace, n) {
		return nil
	}
	l.refuse(of, namespace)
	switch {
	case of == memoryLimit && namespace == definition.SelectorsOwner:
		return overShare("the selectors that autoscalers add to metrics of the administrator's file have used up their " +
			"share of the memory: use fewer different selectors")
	case of == memoryLimit && namespace == "":
		return overShare("the metrics of the administrator's file have used up their share of the memory: an administrator "+
			"has to name fewer%s", l.orRaise(memoryLimit))
	case of == memoryLimit:
		return appmetrics.OverShareError(namespace)
	}
	return overShare("namespace %q "+appmetrics.ShareUsedUp+" the %d endpoints that the custom metrics server scrapes: "+
		"let its HorizontalPodAutoscalers refer to fewer pods, or to the same port and path of a pod", namespace, l.total())
}

func (l *limits) total() int64 {
	_, limit := l.endpoints.Taken()
	return limit
}

// refuse notes that a namespace wanted more than its share, and logs it unless it did so recently.
func (l *limits) refuse(of limit, namespace string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.purged) >= quietAfter {
		l.purgeLocked(now)
	}
	r := refusal{namespace, of}
	last, known := l.refused[r]
	l.refused[r] = now
	if !known || now.Sub(last) > quietAfter {
		l.logRefusal(of, namespace)
	}
}

func (l *limits) logRefusal(of limit, namespace string) {
	taken, limit := l.pool(of).Taken()
	used, all := fmt.Sprintf("%d endpoints", taken), fmt.Sprintf("%d endpoints", limit)
	if of == memoryLimit {
		used, all = fmt.Sprintf("%d MiB", taken>>20), fmt.Sprintf("%d MiB", limit>>20)
	}
	raise := l.orRaise(of)
	switch namespace {
	case definition.SelectorsOwner:
		klog.InfoS("Warning: The use of selectors with metrics of the administrator's file takes more than its share, so "+
			"some of these metrics have an error", "resource", of, "used", used, "limit", all,
			"remedy", "let the autoscalers use fewer different selectors"+raise)
	case "":
		klog.InfoS("Warning: The set of backend metrics in the administrator's file takes more than its share, so some of "+
			"them have an error", "resource", of, "used", used, "limit", all, "remedy", "name fewer"+raise)
	default:
		klog.InfoS("Warning: A namespace wants more than its share, so some of its metrics have an error",
			"namespace", namespace, "resource", of, "used", used, "limit", all,
			"remedy", "let its autoscalers refer to fewer pods and metrics"+raise)
	}
}

// orRaise says what else an administrator can do about a limit: raise what makes it lower than it could be. It returns
// "" if nothing does.
func (l *limits) orRaise(of limit) string {
	_, now := l.pool(of).Taken()
	switch {
	case of == memoryLimit && now < maxMemory, of == endpointLimit && now < endpointsByFiles():
		return ", or raise the memory limit of the server"
	case of == endpointLimit && now < maxEndpoints:
		return ", or raise the limit on open files of the server"
	}
	return ""
}

// endpointsByFiles returns how many endpoints are scraped at most with any memory limit.
func endpointsByFiles() int64 { return min(maxEndpoints, openFiles()/filesDen*filesNum) }

// limited returns how many namespaces were recently denied more of a limit.
func (l *limits) limited(of limit) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.purgeLocked(time.Now())
	for r := range l.refused {
		if r.limit == of {
			n++
		}
	}
	return n
}

func (l *limits) purgeLocked(now time.Time) {
	l.purged = now
	maps.DeleteFunc(l.refused, func(_ refusal, last time.Time) bool { return now.Sub(last) > quietAfter })
}

// mayTake reports whether a namespace would get more of a limit that refused it some. Otherwise the namespace counts
// as limited for longer.
func (l *limits) mayTake(r refusal) bool {
	if !l.pool(r.limit).Take(r.namespace, 1) {
		l.refuse(r.limit, r.namespace)
		return false
	}
	l.pool(r.limit).Give(r.namespace, 1)
	return true
}

func overShare(format string, args ...any) error {
	return appmetrics.Errorf(appmetrics.OverShare, format, args...)
}

func tooManyEndpoints(p *sample.Pod) error {
	return overShare("pod %s is scraped at %d endpoints already, which is the limit: let the "+
		"HorizontalPodAutoscalers of namespace %q agree on its port and path", p.Name, maxEndpointsOfPod, p.Namespace)
}

func tooManySelectors(p *sample.Pod, url string) error {
	return overShare("autoscalers of all namespaces use %d different selectors with metrics of the administrator's file "+
		"already, which is the limit at one URL of pod %s (%s): let them use fewer", maxMetricsOfEndpoint, p.Name, url)
}

func tooManyMetrics(p *sample.Pod, url string) error {
	return overShare("pod %s has %d metrics already, which is the limit at one URL (%s): let the "+
		"HorizontalPodAutoscalers of namespace %q that select it refer to fewer", p.Name, maxMetricsOfEndpoint, url,
		p.Namespace)
}
