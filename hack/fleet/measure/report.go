package measure

import (
	"fmt"
	"io"
	"time"

	"metrics-server/hack/fleet/truth"
)

// Report is the result of a measurement. Times are in seconds unless said otherwise, memory is in bytes.
type Report struct {
	Subject
	Nodes      int     `json:"nodes"`
	Pods       int     `json:"podsPerNode"`
	Containers int     `json:"containersPerPod"`
	Resolution float64 `json:"resolution"`
	Churn      float64 `json:"changesPerSecond"`
	Faulty     int     `json:"faultyPercent"`

	Start struct {
		Ready    float64 `json:"ready"` // 0: never
		Half     float64 `json:"half"`  // of the pods of a sample; 0: never
		All      float64 `json:"all"`
		CPU      float64 `json:"cpu"` // used by the binary until then
		FleetCPU float64 `json:"fleetCPU"`
		Peak     int64   `json:"peak"`
	} `json:"start"`
	Steady struct {
		Seconds          float64 `json:"seconds"`
		Answers          int64   `json:"answers"`
		Refused          int64   `json:"refused"`
		AnswerBytes      int64   `json:"answerBytes"`
		ScrapesPerSecond float64 `json:"scrapesPerSecond"`
		MilliCores       float64 `json:"milliCores"`
		CPUPerScrape     float64 `json:"cpuPerScrapeMicroseconds"`
		RSS              int64   `json:"rss"`
		MostRSS          int64   `json:"mostRSS"`
		Anonymous        int64   `json:"anonymous"` // of RSS
		Files            int     `json:"files"`
		Threads          int     `json:"threads"`
	} `json:"steady"`
	Yardstick struct {
		CPU        float64 `json:"cpuPerAnswerMicroseconds"` // in a loop
		Ratio      float64 `json:"ratio"`                    // of the binary's CPU for a scrape to it
		Paced      float64 `json:"pacedCPUPerAnswerMicroseconds"`
		PacedRatio float64 `json:"pacedRatio"`
	} `json:"yardstick"`
	Age struct {
		Samples int     `json:"samples"`
		P50     float64 `json:"p50"`
		P90     float64 `json:"p90"`
		P99     float64 `json:"p99"`
	} `json:"age"`
	Requests  []Request     `json:"requests"`
	ListsPeak int64         `json:"peakDuringConcurrentLists"`
	Watches   Watches       `json:"watches"`
	Truth     truth.Verdict `json:"truth"`
	Faults    int64         `json:"faults"` // requests to faulty nodes
	Machine   struct {
		BusyBefore      float64 `json:"busyBefore"` // fraction of all processors, before the binary started
		Busy            float64 `json:"busy"`       // in the steady time
		FleetMilliCores float64 `json:"fleetMilliCores"`
		FleetPerAnswer  float64 `json:"fleetPerAnswerMicroseconds"`
		FleetRSS        int64   `json:"fleetRSS"`
		LateP99         float64 `json:"lateP99"`
		Overloaded      bool    `json:"overloaded"`
	} `json:"machine"`
}

// Request is the result for one kind of request.
type Request struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Latency float64 `json:"latency"` // p50
	CPU     float64 `json:"cpu"`     // of the binary
	Bytes   int64   `json:"bytes"`
}

// Watches is the result with watches.
type Watches struct {
	Open           int     `json:"open"`
	Silent         int     `json:"silent"` // those without an event in that time
	BytesPerSecond float64 `json:"bytesPerSecond"`
	MilliCores     float64 `json:"milliCores"`
	RSS            int64   `json:"rss"`
	MostRSS        int64   `json:"mostRSS"`
	Anonymous      int64   `json:"anonymous"` // of RSS
	Busy           float64 `json:"busy"`      // fraction of all processors
}

// A machine counts as overloaded if its processors were busier than this, or if this process was
// woken up later than this.
const (
	tooBusy = 0.9
	tooLate = 0.1
)

func newReport(o Options) *Report {
	return &Report{
		Subject: newSubject(o.Binary, o.Flags),
		Nodes:   o.Nodes, Pods: o.Pods, Containers: o.Containers,
		Resolution: o.Resolution.Seconds(), Churn: o.Churn, Faulty: o.Faulty,
	}
}

func (r *Report) finish(v truth.Verdict) {
	r.Truth = v
	r.Machine.Overloaded = r.Machine.Busy > tooBusy || r.Machine.LateP99 > tooLate
}

// OK reports whether the binary became ready, served every pod, with correct numbers, and sent events to every watch.
func (r *Report) OK() bool {
	return r.Truth.OK() && r.Start.All > 0 && r.Start.Ready > 0 && r.Watches.Silent == 0
}

// WriteTable writes r as a table.
func (r *Report) WriteTable(out io.Writer) error {
	t := newTable(out)
	title, line := t.title, t.line
	since := func(s float64) string {
		if s == 0 {
			return "never"
		}
		return fmt.Sprintf("%.1f s", s)
	}
	title("\n%d nodes x %d pods x %d containers, every %v: %s", r.Nodes, r.Pods, r.Containers,
		time.Duration(r.Resolution*float64(time.Second)), r.command())
	if r.Churn > 0 || r.Faulty > 0 {
		title("%g pod changes/s, %d%% faulty nodes", r.Churn, r.Faulty)
	}
	if r.Machine.Overloaded {
		t.overloaded()
	}
	title("start")
	line("ready", "%s", since(r.Start.Ready))
	line("half of the pods served", "%s", since(r.Start.Half))
	line("all pods served", "%s", since(r.Start.All))
	line("CPU until then", "%.2f s", r.Start.CPU)
	line("peak RSS until then", "%s", mebi(r.Start.Peak))
	title("steady, no requests")
	line("scrapes", "%d in %.0f s, %.1f/s, %d bytes each",
		r.Steady.Answers, r.Steady.Seconds, r.Steady.ScrapesPerSecond, r.Steady.AnswerBytes)
	if r.Steady.Refused > 0 {
		line("rejected by kubelets", "%d: the binary did not send its token", r.Steady.Refused)
	}
	line("CPU", "%.0f us per scrape, %.0f millicores", r.Steady.CPUPerScrape, r.Steady.MilliCores)
	line("expfmt", "%.0f us to parse an answer in a loop; a scrape costs %.2f times that", r.Yardstick.CPU,
		r.Yardstick.Ratio)
	line("", "%.0f us at the pace of the scrapes; a scrape costs %.2f times that", r.Yardstick.Paced,
		r.Yardstick.PacedRatio)
	line("RSS", "%s, at most %s; %s without file pages",
		mebi(r.Steady.RSS), mebi(r.Steady.MostRSS), mebi(r.Steady.Anonymous))
	line("files, threads", "%d, %d", r.Steady.Files, r.Steady.Threads)
	line("age of served samples", "p50 %.1f s, p90 %.1f s, p99 %.1f s", r.Age.P50, r.Age.P90, r.Age.P99)
	title("requests")
	line("", "n\tp50\tCPU\tbytes")
	for _, q := range r.Requests {
		line(q.Name, "%d\t%s\t%s\t%d", q.Count, short(q.Latency), short(q.CPU), q.Bytes)
	}
	if err := t.flush(); err != nil {
		return err
	}
	line(fmt.Sprintf("peak RSS with %d concurrent lists", concurrent), "%s", mebi(r.ListsPeak))
	if w := &r.Watches; w.Open > 0 {
		title("with %d watches", w.Open)
		line("CPU", "%.0f millicores with scraping", w.MilliCores)
		line("RSS", "%s, at most %s; %s without file pages", mebi(w.RSS), mebi(w.MostRSS), mebi(w.Anonymous))
		line("events", "%.1f MB/s; %d watches without any", w.BytesPerSecond/1e6, w.Silent)
		line("machine", "%.0f%% busy", 100*w.Busy)
	}
	title("truth")
	line("checked", "%d numbers in %d lists", r.Truth.Numbers, r.Truth.Lists)
	line("wrong, missing", "%d, %d", r.Truth.Wrong, r.Truth.Missing)
	t.examples(&r.Truth)
	if r.Faulty > 0 {
		line("requests to faulty nodes", "%d", r.Faults)
	}
	title("machine")
	line("busy", "%.0f%%, %.0f%% before the binary started; wake-ups late by %s at p99",
		100*r.Machine.Busy, 100*r.Machine.BusyBefore, short(r.Machine.LateP99))
	line("fleet", "%.0f millicores, %.0f us per answer, RSS %s, %.1f s CPU at the start",
		r.Machine.FleetMilliCores, r.Machine.FleetPerAnswer, mebi(r.Machine.FleetRSS), r.Start.FleetCPU)
	return t.flush()
}
