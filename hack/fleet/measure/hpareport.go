package measure

import (
	"cmp"
	"fmt"
	"io"

	"metrics-server/hack/fleet/truth"
)

// HPAReport is the result of a measurement of the custom metrics server. Times are in seconds unless said otherwise,
// memory is in bytes.
type HPAReport struct {
	Subject
	HPAs   int     `json:"hpas"`
	Pods   int     `json:"podsPerHPA"`
	Churn  float64 `json:"replacedPodsPerSecond"`
	Faulty int     `json:"faultyPercent"`
	Fault  string  `json:"fault,omitempty"`

	Start struct {
		Ready float64 `json:"ready"`
		All   float64 `json:"all"` // of the pods of a sample
		CPU   float64 `json:"cpu"` // used by the binary until then
		Peak  int64   `json:"peak"`
	} `json:"start"`
	Scraping   Scraping `json:"scraping"`   // without requests
	Controlled Scraping `json:"controlled"` // with the requests of the HPA controller
	Files      int      `json:"files"`
	Answers    Answers  `json:"answers"` // to the controller
	Loop       Answers  `json:"loop"`    // to a concurrent loop of a hundred requests a second
	Age        struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"age"`
	Changes struct {
		BurstHalf      Delays `json:"burstHalf"` // until half of a jump is served
		Burst          Delays `json:"burst"`     // until 95 % of it is
		NewPod         Delays `json:"newPod"`
		NewHPA         Delays `json:"newHPA"`         // first value
		NewHPAComplete Delays `json:"newHPAComplete"` // all values
	} `json:"changes"`
	Truth      truth.Verdict `json:"truth"`
	Deviation  float64       `json:"largestDeviation"`
	Overloaded bool          `json:"overloaded"`

	Prometheus *PrometheusReport `json:"prometheus,omitempty"`
}

// Scraping is the resource usage of a process over some time.
type Scraping struct {
	Seconds      float64 `json:"seconds"`
	Pods         int     `json:"pods"`
	Pages        int64   `json:"pages"`
	PageBytes    int64   `json:"pageBytes"`
	Cores        float64 `json:"cores"`
	CPUPerPage   float64 `json:"cpuPerPageMicroseconds"`
	RSS          int64   `json:"rss"`
	MostRSS      int64   `json:"mostRSS"`
	Anonymous    int64   `json:"anonymous"` // of RSS
	FleetCores   float64 `json:"fleetCores"`
	FleetPerPage float64 `json:"fleetPerPageMicroseconds"`
	Busy         float64 `json:"busy"` // fraction of all processors
	LateP99      float64 `json:"lateP99"`
}

// rssPerPod returns the last RSS divided by the number of pods, in bytes.
func (s *Scraping) rssPerPod() float64 { return float64(s.RSS) / float64(s.Pods) }

// Answers are requests for one metric of the pods of one HPA.
type Answers struct {
	Count     int     `json:"count"`
	PerSecond float64 `json:"perSecond"`
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	CPU       float64 `json:"cpuMicroseconds,omitempty"` // of the binary for each
}

// Delays are times until a change is served.
type Delays struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
}

func (d Delays) String() string {
	return fmt.Sprintf("p50 %.1f s, p99 %.1f s of %d", d.P50, d.P99, d.Count)
}

// PrometheusReport is the resource usage of Prometheus with the same pods, and with a query for
// each HPA every controllerPeriod. The ratios compare the custom metrics server, with the requests
// of the HPA controller, to Prometheus.
type PrometheusReport struct {
	Binary  string   `json:"binary"`
	Using   Scraping `json:"using"`
	Queries Answers  `json:"queries"`
	Values  int      `json:"values"` // in the answers to the queries
	CPU     float64  `json:"cpuPerPageRatio"`
	RSS     float64  `json:"rssPerPodRatio"`
}

func newHPAReport(o HPAOptions) *HPAReport {
	return &HPAReport{
		Subject: newSubject(o.Binary, o.Flags),
		HPAs:    o.HPAs, Pods: o.Pods, Churn: o.Churn, Faulty: o.Faulty, Fault: o.Fault,
	}
}

// OK reports whether everything that was served is correct and nothing was missing.
func (r *HPAReport) OK() bool { return r.Truth.OK() && r.Truth.Numbers > 0 }

// WriteTable writes r as a table.
func (r *HPAReport) WriteTable(out io.Writer) error {
	t := newTable(out)
	title, line := t.title, t.line
	scraping := func(s Scraping) {
		line("pages", "%d in %.0f s, %.1f/s, %d bytes each", s.Pages, s.Seconds, float64(s.Pages)/max(s.Seconds, 1),
			s.PageBytes)
		line("CPU", "%.3f cores, %.0f us per page", s.Cores, s.CPUPerPage)
		line("RSS", "%s, at most %s; %s without file pages", mebi(s.RSS), mebi(s.MostRSS), mebi(s.Anonymous))
		line("machine", "%.0f%% busy, the fleet %.2f cores, %.0f us per page; wake-ups late by %s at p99", 100*s.Busy,
			s.FleetCores, s.FleetPerPage, short(s.LateP99))
	}
	title("\n%d HPAs x %d pods: %s", r.HPAs, r.Pods, r.command())
	if r.Churn > 0 || r.Faulty > 0 {
		title("%g pods replaced per second, %d%% faulty pods (%s)", r.Churn, r.Faulty,
			cmp.Or(r.Fault, "each kind by turns"))
	}
	if r.Overloaded {
		t.overloaded()
	}
	title("start")
	line("ready", "%.1f s", r.Start.Ready)
	line("all pods of a sample served", "%.1f s", r.Start.All)
	line("CPU, peak RSS until then", "%.1f s, %s", r.Start.CPU, mebi(r.Start.Peak))
	title("scrapes, no requests")
	scraping(r.Scraping)
	line("files", "%d", r.Files)
	title("with the requests of the HPA controller")
	scraping(r.Controlled)
	line("age of served values", "p50 %.1f s, p99 %.1f s", r.Age.P50, r.Age.P99)
	line("answers", "%.0f/s, p50 %s, p99 %s", r.Answers.PerSecond, short(r.Answers.P50), short(r.Answers.P99))
	line("a concurrent loop", "%.0f/s, p50 %s, p99 %s, %.0f us of CPU each", r.Loop.PerSecond, short(r.Loop.P50),
		short(r.Loop.P99), r.Loop.CPU)
	title("changes")
	line("burst until half of it is served", "%v", r.Changes.BurstHalf)
	line("until 95% is", "%v", r.Changes.Burst)
	line("first value of a new pod", "%v", r.Changes.NewPod)
	line("first value of a new HPA", "%v", r.Changes.NewHPA)
	line("all values of a new HPA", "%v", r.Changes.NewHPAComplete)
	title("truth")
	line("checked", "%d values in %d answers", r.Truth.Numbers, r.Truth.Lists)
	line("wrong, missing", "%d, %d", r.Truth.Wrong, r.Truth.Missing)
	line("largest deviation of a rate", "%.1f%%", 100*r.Deviation)
	t.examples(&r.Truth)
	if p := r.Prometheus; p != nil {
		title("Prometheus on the same %d pods, with one query per HPA every %v", p.Using.Pods, controllerPeriod)
		scraping(p.Using)
		line("queries", "%.0f/s, p50 %s, p99 %s, %d values", p.Queries.PerSecond, short(p.Queries.P50),
			short(p.Queries.P99), p.Values)
		title("this server, with the requests of the HPA controller, in percent of Prometheus")
		line("CPU per page", "%.1f%%: %.0f of %.0f us, of %d and %d pages", 100*p.CPU, r.Controlled.CPUPerPage,
			p.Using.CPUPerPage, r.Controlled.Pages, p.Using.Pages)
		line("RSS per pod", "%.1f%%: %.0f of %.0f KiB, of %d and %d pods", 100*p.RSS, r.Controlled.rssPerPod()/(1<<10),
			p.Using.rssPerPod()/(1<<10), r.Controlled.Pods, p.Using.Pods)
	}
	return t.flush()
}
