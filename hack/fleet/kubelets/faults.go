package kubelets

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// Fault is something that a kubelet can do wrong. Either it fails, so that a scrape gives nothing,
// or it lies, so that a part of its answer is useless. Most lies are about one pod, its victim.
type Fault struct {
	Name string
	// Cause is what a metrics server should say of the scrape that fails. Empty: it does not fail.
	Cause string
	// Refused is why samples should be refused, by the reason of metrics_server_samples_refused_total. Empty: none should.
	Refused string

	do    func() kubelettest.Fault // a new one for each kubelet
	place place
}

// place says where the fault is, if not in the answer.
type place uint8

const (
	inAnswer      place = iota
	inCertificate       // the certificate is signed by an unknown authority
	inListener          // nothing listens
)

const (
	gib = 1 << 30
	mib = 1 << 20
)

// Faults has all faults of a kubelet.
var Faults = []Fault{
	{Name: "hang", Cause: "timeout", do: plain(kubelettest.Hang)},
	{Name: "hang in the header", Cause: "timeout", do: plain(kubelettest.HangInHeader)},
	{Name: "hang after the header", Cause: "timeout", do: plain(kubelettest.HangAfterHeader)},
	{Name: "drip", Cause: "timeout", do: plain(kubelettest.Drip(time.Second))},
	{Name: "401", Cause: "401", do: plain(kubelettest.Status(http.StatusUnauthorized, "simulated"))},
	{Name: "403", Cause: "403", do: plain(kubelettest.Status(http.StatusForbidden, "simulated"))},
	{Name: "404", Cause: "404", do: plain(kubelettest.Status(http.StatusNotFound, "simulated"))},
	{Name: "429", Cause: "429", do: plain(kubelettest.Status(http.StatusTooManyRequests, "simulated"))},
	{Name: "500", Cause: "5xx", do: plain(kubelettest.Status(http.StatusInternalServerError, "simulated"))},
	{Name: "redirect", Cause: "redirect", do: plain(kubelettest.Redirect("https://127.0.0.1:1/"))},
	{Name: "reset", Cause: "reset", do: plain(kubelettest.Reset)},
	{Name: "half", Cause: "reset", do: plain(kubelettest.Half)},
	{Name: "no listener", Cause: "connection refused", place: inListener},
	{Name: "foreign certificate", Cause: "x509", place: inCertificate},

	{Name: "1 GiB", Cause: "body too large", do: plain(kubelettest.Flood(gib, false))},
	{Name: "1 GiB, declared", Cause: "body too large", do: plain(kubelettest.Flood(gib, true))},
	{Name: "1 GiB, slowly", Cause: "timeout", do: plain(slowly)},
	{Name: "gzip bomb", Cause: "content type", do: plain(kubelettest.GzipBomb(gib))},
	{Name: "endless header", Cause: "other", do: plain(kubelettest.EndlessHeader)},
	{Name: "noise", Cause: "incomplete", do: plain(kubelettest.Noise(1, 100_000))},
	{Name: "a million containers", Cause: "body too large", do: plain(million)},

	{Name: "100,000 containers", Refused: "excess", do: adding(strangers(100_000))},
	{Name: "a line of 10 MiB", Refused: "malformed", do: adding(longLine)},
	{Name: "noise between lines", Refused: "malformed", do: adding(noiseLines)},
	{Name: "no labels", Refused: "malformed", do: adding(fixed("container_cpu_usage_seconds_total " +
		"1\ncontainer_memory_working_set_bytes{} 1\n"))},
	{Name: "duplicates", Refused: "duplicate", do: lying(func(r *row) { r.again = true })},
	{Name: "NaN", Refused: "not_a_number", do: lying(valued("NaN"))},
	{Name: "infinities", Refused: "infinite", do: lying(func(r *row) {
		if r.value = "+Inf"; r.name == memoryName {
			r.value = "-Inf"
		}
	})},
	{Name: "negatives", Refused: "negative", do: lying(func(r *row) { r.value = "-" + r.value })},
	{Name: "over 2^63", Refused: "overflow", do: lying(valued("9.3e+18"))},
	{Name: "exponents", do: rewriting(func(r *row) { r.value = exponent(r.value) })},
	{Name: "1970", Refused: "timestamp_behind", do: lying(func(r *row) { r.time = "1" })},
	{
		Name: "next year", Refused: "timestamp_ahead",
		do: lying(func(r *row) { r.time = shifted(r.time, 365*24*time.Hour) }),
	},
	{Name: "backwards", Refused: "timestamp_old", do: func() kubelettest.Fault {
		var asked atomic.Int64
		return sending(func(answer []byte) []byte {
			by := -time.Minute * time.Duration(asked.Add(1))
			return rewrite(answer, victim(answer), func(r *row) { r.time = shifted(r.time, by) })
		})
	}},
}

// FaultNamed returns the fault of that name.
func FaultNamed(name string) (*Fault, error) {
	for i := range Faults {
		if Faults[i].Name == name {
			return &Faults[i], nil
		}
	}
	return nil, fmt.Errorf("%q is not a fault", name)
}

func plain(f kubelettest.Fault) func() kubelettest.Fault {
	return func() kubelettest.Fault { return f }
}

// sending returns a handler that sends what f makes of the correct answer.
func sending(f func(answer []byte) []byte) kubelettest.Fault {
	return func(w http.ResponseWriter, r *http.Request, answer []byte) { kubelettest.Answer(w, r, f(answer)) }
}

// adding puts the rows that more appends to dst before the right answer's rows of memory: of each
// family of rows that it names, the right ones come first. The n-th answer may have others than the
// one before.
func adding(more func(dst []byte, n int64) []byte) func() kubelettest.Fault {
	return func() kubelettest.Fault {
		var asked atomic.Int64
		return sending(func(answer []byte) []byte {
			at := max(bytes.Index(answer, []byte("# HELP "+memoryName)), 0)
			out := more(bytes.Clone(answer[:at]), asked.Add(1))
			return append(out, answer[at:]...)
		})
	}
}

func fixed(text string) func([]byte, int64) []byte {
	return func(dst []byte, _ int64) []byte { return append(dst, text...) }
}

// strangers are containers that nobody knows, different ones each time.
func strangers(count int) func(dst []byte, n int64) []byte {
	return func(dst []byte, n int64) []byte {
		for i := range count {
			dst = append(dst, cpuName+`{container="c",namespace="flood",pod="p`...)
			dst = strconv.AppendInt(dst, n*int64(count)+int64(i), 10)
			dst = append(dst, "\"} 1\n"...)
		}
		return dst
	}
}

// slowly sends 4 MiB a second: it would be too much in total, but the scrape is given up before.
func slowly(w http.ResponseWriter, r *http.Request, _ []byte) {
	w.Header().Set("Content-Type", kubelettest.ContentType)
	const period = 50 * time.Millisecond
	piece := bytes.Repeat([]byte("flood_total 1\n"), int(4*mib*period/time.Second)/len("flood_total 1\n"))
	tick := time.NewTicker(period)
	defer tick.Stop()
	for range gib / len(piece) {
		if _, err := w.Write(piece); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// million sends a million containers, as far as the client reads them.
func million(w http.ResponseWriter, _ *http.Request, answer []byte) {
	w.Header().Set("Content-Type", kubelettest.ContentType)
	_, err := w.Write(answer)
	const piece = 10_000
	var rows []byte
	for n := int64(0); n < 1_000_000/piece && err == nil; n++ {
		rows = strangers(piece)(rows[:0], n)
		_, err = w.Write(rows)
	}
}

// longLine is a container with a name of 10 MiB, a different one each time.
func longLine(dst []byte, n int64) []byte {
	dst = append(dst, cpuName+`{container="c`...)
	dst = strconv.AppendInt(dst, n, 10)
	dst = append(dst, bytes.Repeat([]byte("x"), 10*mib)...)
	return append(dst, "\",namespace=\"flood\",pod=\"p\"} 1\n"...)
}

func noiseLines(dst []byte, n int64) []byte {
	for i := range 1000 {
		dst = append(dst, cpuName...)
		for j := range 50 {
			dst = append(dst, byte(int(n)*31+i*7+j*j*13)|0x80) // no line feed
		}
		dst = append(dst, '\n')
	}
	return dst
}

const (
	cpuName    = "container_cpu_usage_seconds_total"
	memoryName = "container_memory_working_set_bytes"
)

// row is a row of CPU or memory of a container.
type row struct {
	name, labels, value, time string
	again                     bool // it is there twice, the second time with another value
}

// lying changes the rows of one pod.
func lying(change func(*row)) func() kubelettest.Fault {
	return plain(sending(func(answer []byte) []byte { return rewrite(answer, victim(answer), change) }))
}

// rewriting changes the rows of all pods.
func rewriting(change func(*row)) func() kubelettest.Fault {
	return plain(sending(func(answer []byte) []byte { return rewrite(answer, "", change) }))
}

func valued(value string) func(*row) { return func(r *row) { r.value = value } }

// exponent returns the same number, written with an exponent.
func exponent(value string) string {
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return value
	}
	return strconv.FormatFloat(v, 'E', -1, 64)
}

func shifted(stamp string, by time.Duration) string {
	ms, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return stamp
	}
	return strconv.FormatInt(ms+by.Milliseconds(), 10)
}

// victim returns the end of the labels of the pod that is lied about, the first pod.
func victim(answer []byte) string {
	_, after, _ := bytes.Cut(answer, []byte("\n"+cpuName+"{"))
	labels, _, _ := bytes.Cut(after, []byte("} "))
	at := max(bytes.Index(labels, []byte("namespace=")), 0)
	return string(labels[at:]) + "}"
}

// rewrite returns answer with change applied to the rows of CPU and memory of the containers whose
// labels end with end.
func rewrite(answer []byte, end string, change func(*row)) []byte {
	out := make([]byte, 0, 2*len(answer))
	for line := range bytes.Lines(answer) {
		name, _, labelled := bytes.Cut(line, []byte("{"))
		if !labelled || string(name) != cpuName && string(name) != memoryName {
			out = append(out, line...)
			continue
		}
		at := bytes.LastIndexByte(line, '}') + 1
		rest := strings.Fields(string(line[at:]))
		labels := string(line[len(name):at])
		if len(rest) != 2 || !strings.HasSuffix(labels, end) {
			out = append(out, line...)
			continue
		}
		r := row{name: string(name), labels: labels, value: rest[0], time: rest[1]}
		change(&r)
		out = append(out, r.name+r.labels+" "+r.value+" "+r.time+"\n"...)
		if r.again {
			out = append(out, r.name+r.labels+" 12345678 "+r.time+"\n"...)
		}
	}
	return out
}
