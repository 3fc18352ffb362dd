package pods

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"metrics-server/hack/fleet/child"
)

func families(t *testing.T, page []byte) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	all, err := p.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sums are the sums over the series of each kind: of a histogram, its sum and its count.
type sums struct{ counter, gauge, sum, count float64 }

func sumsOf(t *testing.T, page []byte) sums {
	t.Helper()
	var s sums
	all := families(t, page)
	for _, m := range all[Counter.Metric()].Metric {
		s.counter += m.GetCounter().GetValue()
	}
	for _, m := range all[Gauge.Metric()].Metric {
		s.gauge += m.GetGauge().GetValue()
	}
	for _, m := range all[Histogram.Metric()].Metric {
		s.sum += m.GetHistogram().GetSampleSum()
		s.count += float64(m.GetHistogram().GetSampleCount())
	}
	return s
}

// served are the values that follow from two pages.
func served(t *testing.T, s *Spec, from, to time.Time) map[Kind]float64 {
	t.Helper()
	a, b := sumsOf(t, s.Page(nil, NewShared(from), from)), sumsOf(t, s.Page(nil, NewShared(to), to))
	return map[Kind]float64{
		Counter: (b.counter - a.counter) / to.Sub(from).Seconds(), Gauge: b.gauge,
		Histogram: (b.sum - a.sum) / (b.count - a.count),
	}
}

var (
	now  = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	addr = netip.MustParseAddr("10.0.1.2")
)

func TestPages(t *testing.T) {
	s := &Spec{Addr: addr, Level: 217.3, Started: now.Add(-100 * time.Hour)}
	page := s.Page(nil, NewShared(now), now)
	if n := len(page); n < 28_000 || n > 36_000 {
		t.Errorf("a page has %d bytes, want about 30 KB", n)
	}
	for name, f := range families(t, page) {
		if f.GetHelp() == "" || len(f.Metric) == 0 {
			t.Errorf("family %s: %v", name, f)
		}
	}
	for _, interval := range []time.Duration{5 * time.Second, 15 * time.Second} {
		for k, v := range served(t, s, now, now.Add(interval)) {
			if d := s.Deviation(k, v, now, now.Add(interval)); d > Tolerance/2 {
				t.Errorf("%s is %g, which deviates by %g from a load of %g", k.Metric(), v, d, s.Level)
			}
			for _, wrong := range []float64{0, v * 0.9, v * 1.1, -v, math.NaN(), math.Inf(1)} {
				if d := s.Deviation(k, wrong, now, now.Add(interval)); d <= Tolerance {
					t.Errorf("%s is taken to be right with %g instead of %g", k.Metric(), wrong, v)
				}
			}
		}
	}
}

func TestStep(t *testing.T) {
	at := now.Add(7 * time.Second)
	s := &Spec{Addr: addr, Level: 250, Started: now.Add(-time.Hour), Steps: []Step{{At: at, Factor: 3}}}
	across := served(t, s, now, now.Add(15*time.Second))
	after := served(t, s, at.Add(time.Second), at.Add(16*time.Second))
	for k, v := range across {
		if d := s.Deviation(k, v, now, now.Add(15*time.Second)); d > Tolerance/2 {
			t.Errorf("across the step, %s is %g, which deviates by %g", k.Metric(), v, d)
		}
		if d := s.Deviation(k, after[k], at.Add(time.Second), at.Add(16*time.Second)); d > Tolerance/2 {
			t.Errorf("after the step, %s is %g, which deviates by %g", k.Metric(), after[k], d)
		}
		if d := s.Deviation(k, after[k]/3, at.Add(time.Second), at.Add(16*time.Second)); d <= Tolerance {
			t.Errorf("the former value of %s is taken to be right after the step", k.Metric())
		}
	}
	if got := across[Counter]; got < 300 || got > 700 {
		t.Errorf("the rate across the step is %g, want one between 250 and 750", got)
	}
}

func TestRestarts(t *testing.T) {
	before := Spec{Addr: addr, Level: 250, Started: now.Add(-time.Hour)}
	faulty := before.With(Restarts, now)
	s := &faulty
	starts := map[float64]bool{}
	for at := now; at.Before(now.Add(3 * restartPeriod)); at = at.Add(time.Second) {
		page := s.Page(nil, NewShared(at), at)
		began := families(t, page)["process_start_time_seconds"].Metric[0].GetGauge().GetValue()
		starts[began] = true
		alive := float64(at.UnixMilli())/1000 - began
		if got := sumsOf(t, page).counter; alive < 0 || alive > restartPeriod.Seconds() || math.Abs(got-alive*250) > 10 {
			t.Fatalf("%g s after a restart, there were %g requests", alive, got)
		}
	}
	if n := len(starts); n != 3 {
		t.Errorf("%d starts in three periods", n)
	}
	end := now.Add(restartPeriod + 20*time.Second)
	healed := s.With("", end)
	if a, b := sumsOf(t, s.Page(nil, NewShared(end), end)), sumsOf(t, healed.Page(nil, NewShared(end), end)); a != b {
		t.Errorf("the end of the fault changes %v to %v", a, b)
	}
	for _, c := range []struct {
		of    Spec
		to    time.Duration // after the fault began
		right bool          // whether a rate of 100 of the last 30 s is right
	}{
		{before, -time.Second, false},
		{faulty, 5 * time.Second, true},
		{faulty, 40 * time.Second, false},
		{faulty, restartPeriod + 5*time.Second, true},
		{healed, restartPeriod + 20*time.Second, true},
		{healed, 2 * restartPeriod, false},
	} {
		to := now.Add(c.to)
		if d := c.of.Deviation(Counter, 100, to.Add(-30*time.Second), to); d <= Tolerance != c.right {
			t.Errorf("%v after the fault began, a deviation of %g, fault %q", c.to, d, c.of.Fault)
		}
	}
}

// TestFaults asks over HTTP, as servers do.
func TestFaults(t *testing.T) {
	s, err := Serve("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	// get returns the page, at most 10 MB of it, or a word for the reason why there is none.
	get := func(ip string, timeout time.Duration) (page []byte, problem string) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(ip, port)+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return nil, "timeout"
			}
			return nil, "closed"
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Sprint(resp.StatusCode)
		}
		page, err = io.ReadAll(io.LimitReader(resp.Body, 10_000_000))
		switch {
		case ctx.Err() != nil:
			return nil, "timeout"
		case err != nil:
			return nil, "closed"
		case len(page) == 10_000_000:
			return nil, "large"
		case !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain"):
			return nil, resp.Header.Get("Content-Type")
		}
		p := expfmt.NewTextParser(model.LegacyValidation)
		isPage := bytes.Contains(page, []byte(" histogram\n")) // that with a wrong type cannot be parsed
		if _, err := p.TextToMetricFamilies(bytes.NewReader(page)); err != nil && !isPage {
			return nil, "noise"
		}
		return page, ""
	}
	const patience = 20 * time.Second
	want := map[string]string{
		"hang": "timeout", "reset": "closed", "half": "closed", "500": "500", "redirect": "302", "garbage": "noise",
		"login page": "text/html", "huge": "large", "huge, declared": "large", "slow": "timeout",
		WrongType: "", NotANumber: "", Restarts: "",
	}
	for i, f := range Faults {
		ip := fmt.Sprintf("127.20.0.%d", i+1)
		spec := Spec{Addr: netip.MustParseAddr(ip), Level: 250, Started: time.Now().Add(-time.Hour)}
		if err := s.Add(spec); err != nil {
			t.Fatal(err)
		}
		if page, problem := get(ip, patience); problem != "" || len(page) < 28_000 {
			t.Errorf("%s: before, there is %d bytes, %s", f.Name, len(page), problem)
		}
		faulty := spec
		faulty.Fault = f.Name
		if err := s.Add(faulty); err != nil {
			t.Fatal(err)
		}
		timeout := patience
		if want[f.Name] == "timeout" {
			timeout = 300 * time.Millisecond
		}
		page, problem := get(ip, timeout)
		if expected, known := want[f.Name]; !known || problem != expected {
			t.Errorf("%s: %q, want %q", f.Name, problem, expected)
		}
		switch text := string(page); f.Name {
		case WrongType:
			if !strings.Contains(text, "# TYPE "+Counter.Metric()+" gauge\n") {
				t.Error("the counter has its right type")
			}
		case NotANumber:
			if !strings.Contains(text, `worker_queue_length{queue="mail"} NaN`) {
				t.Error("a gauge has a value")
			}
		}
		if err := s.Add(spec); err != nil {
			t.Fatal(err)
		}
		if page, problem := get(ip, patience); problem != "" || len(page) < 28_000 {
			t.Errorf("%s: afterwards, there is %d bytes, %s", f.Name, len(page), problem)
		}
		s.Remove(spec.Addr)
		if _, problem := get(ip, patience); problem != "closed" {
			t.Errorf("%s: a pod that was removed answers, %q", f.Name, problem)
		}
	}
	if err := s.Add(Spec{Addr: addr, Fault: "x"}); err == nil {
		t.Error("an unknown fault is accepted")
	}
	if got := s.Stats(); got.Answers < int64(2*len(Faults)) || got.Faults < int64(len(Faults)) || got.Bytes == 0 {
		t.Errorf("%+v", got)
	}
}

// TestProcess sends a process the requests of a parent.
func TestProcess(t *testing.T) {
	in, ask := io.Pipe()
	answer, out := io.Pipe()
	done := make(chan error)
	go func() { done <- Main(in, out) }()
	p := &Process{child.Attach(ask, answer)}
	if _, err := p.ask(request{Serve: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Add(Spec{Addr: addr}, Spec{Addr: netip.MustParseAddr("10.0.0.9"), Fault: "hang"}); err != nil {
		t.Error(err)
	}
	if err := p.Remove(addr); err != nil {
		t.Error(err)
	}
	if err := p.Add(Spec{Addr: addr, Fault: "x"}); err == nil || !strings.Contains(err.Error(), "not a fault") {
		t.Errorf("an error of the process: %v", err)
	}
	if got, err := p.Stats(); err != nil || got != (Stats{}) {
		t.Errorf("%+v, %v", got, err)
	}
	p.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
