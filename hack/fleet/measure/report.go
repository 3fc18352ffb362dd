package measure

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"metrics-server/hack/fleet/truth"
)

// Report is what was measured. Times are in seconds unless said otherwise, memory is in bytes.
type Report struct {
	Binary     string    `json:"binary"`
	Flags      []string  `json:"flags,omitempty"`
	Time       time.Time `json:"time"`
	Nodes      int       `json:"nodes"`
	Pods       int       `json:"podsPerNode"`
	Containers int       `json:"containersPerPod"`
	Resolution float64   `json:"resolution"`
	Churn      float64   `json:"changesPerSecond"`
	Faulty     int       `json:"faultyPercent"`
	HTTP2      int       `json:"http2Percent"`

	Start struct {
		Ready    float64 `json:"ready"` // 0: never
		Half     float64 `json:"half"`  // of the pods of a sample; 0: never
		All      float64 `json:"all"`
		CPU      float64 `json:"cpu"` // that the binary used until then
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
	Truth     truth.Verdict `json:"truth"`
	Faults    int64         `json:"faults"` // requests that faulty nodes got
	Machine   struct {
		BusyBefore      float64 `json:"busyBefore"` // part of all processors, before the binary started
		Busy            float64 `json:"busy"`       // in the steady time
		FleetMilliCores float64 `json:"fleetMilliCores"`
		FleetPerAnswer  float64 `json:"fleetPerAnswerMicroseconds"`
		FleetRSS        int64   `json:"fleetRSS"`
		LateP99         float64 `json:"lateP99"`
		Overloaded      bool    `json:"overloaded"`
	} `json:"machine"`
}

// Request is what was measured of one kind of request.
type Request struct {
	Name    string  `json:"name"`
	Count   int     `json:"count"`
	Latency float64 `json:"latency"` // p50
	CPU     float64 `json:"cpu"`     // of the binary
	Bytes   int64   `json:"bytes"`
}

// A machine is overloaded if its processors were busier than this, or if this process was woken up later.
const (
	tooBusy = 0.9
	tooLate = 0.1
)

func newReport(o Options) *Report {
	return &Report{
		Binary: o.Binary, Flags: o.Flags, Time: time.Now().UTC().Truncate(time.Second), Nodes: o.Nodes, Pods: o.Pods, Containers: o.Containers,
		Resolution: o.Resolution.Seconds(), Churn: o.Churn, Faulty: o.Faulty, HTTP2: o.HTTP2,
	}
}

func (r *Report) finish(v truth.Verdict) {
	r.Truth = v
	r.Machine.Overloaded = r.Machine.Busy > tooBusy || r.Machine.LateP99 > tooLate
}

// OK reports whether the binary became ready, all was served, and all that was served is true.
func (r *Report) OK() bool { return r.Truth.OK() && r.Start.All > 0 && r.Start.Ready > 0 }

// WriteTable writes r as a table.
func (r *Report) WriteTable(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	title := func(text string) {
		w.Flush()
		fmt.Fprintln(out, text)
	}
	since := func(s float64) string {
		if s == 0 {
			return "never"
		}
		return fmt.Sprintf("%.1f s", s)
	}
	title(fmt.Sprintf("\n%d nodes x %d pods x %d containers, every %v: %s", r.Nodes, r.Pods, r.Containers,
		time.Duration(r.Resolution*float64(time.Second)), strings.Join(append([]string{r.Binary}, r.Flags...), " ")))
	if r.Churn > 0 || r.Faulty > 0 || r.HTTP2 > 0 {
		title(fmt.Sprintf("%g changes of pods/s, %d%% faulty nodes, %d%% HTTP/2", r.Churn, r.Faulty, r.HTTP2))
	}
	if r.Machine.Overloaded {
		title("THE MACHINE WAS OVERLOADED: times are worth nothing, CPU little")
	}
	title("start")
	line("ready", "%s", since(r.Start.Ready))
	line("half of the pods served", "%s", since(r.Start.Half))
	line("all pods served", "%s", since(r.Start.All))
	line("CPU until then", "%.2f s", r.Start.CPU)
	line("peak RSS until then", "%s", mebi(r.Start.Peak))
	title("steady, nothing asked")
	line("scrapes", "%d in %.0f s, %.1f/s, %d bytes each", r.Steady.Answers, r.Steady.Seconds, r.Steady.ScrapesPerSecond, r.Steady.AnswerBytes)
	if r.Steady.Refused > 0 {
		line("refused by kubelets", "%d: the binary did not show its token", r.Steady.Refused)
	}
	line("CPU", "%.0f us per scrape, %.0f millicores", r.Steady.CPUPerScrape, r.Steady.MilliCores)
	line("expfmt", "%.0f us to parse an answer in a loop: a scrape costs %.2f of it", r.Yardstick.CPU, r.Yardstick.Ratio)
	line("", "%.0f us at the pace of the scrapes: %.2f of it", r.Yardstick.Paced, r.Yardstick.PacedRatio)
	line("RSS", "%s, at most %s; %s without pages of files", mebi(r.Steady.RSS), mebi(r.Steady.MostRSS), mebi(r.Steady.Anonymous))
	line("files, threads", "%d, %d", r.Steady.Files, r.Steady.Threads)
	line("age of what is served", "p50 %.1f s, p90 %.1f s, p99 %.1f s", r.Age.P50, r.Age.P90, r.Age.P99)
	title("requests")
	w.Flush()
	fmt.Fprintf(w, "  \tn\tp50\tCPU\tbytes\n")
	for _, q := range r.Requests {
		fmt.Fprintf(w, "  %s\t%d\t%s\t%s\t%d\n", q.Name, q.Count, short(q.Latency), short(q.CPU), q.Bytes)
	}
	w.Flush()
	line(fmt.Sprintf("peak RSS of %d lists at once", concurrent), "%s", mebi(r.ListsPeak))
	title("truth")
	line("checked", "%d numbers in %d lists", r.Truth.Numbers, r.Truth.Lists)
	line("wrong, missing", "%d, %d", r.Truth.Wrong, r.Truth.Missing)
	for _, e := range r.Truth.Examples {
		line("", "%s", e)
	}
	if r.Faulty > 0 {
		line("requests to faulty nodes", "%d", r.Faults)
	}
	title("machine")
	line("busy", "%.0f%%, before the binary started %.0f%%; woken up late by %s at p99", 100*r.Machine.Busy, 100*r.Machine.BusyBefore, short(r.Machine.LateP99))
	line("fleet", "%.0f millicores, %.0f us per answer, RSS %s, %.1f s CPU at the start", r.Machine.FleetMilliCores, r.Machine.FleetPerAnswer, mebi(r.Machine.FleetRSS), r.Start.FleetCPU)
	return w.Flush()
}

func mebi(bytes int64) string { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }

// short is a time in seconds with three digits.
func short(s float64) string {
	if s >= 0.9995 { // else this would be 1e+03 ms
		return fmt.Sprintf("%.3g s", s)
	}
	return fmt.Sprintf("%.3g ms", 1000*s)
}
