// Command workload is every container of the end-to-end tests and of the demonstration, and the pause process of the
// pods of hack/cluster. It uses what CPU and memory its flags or a request tell it to, ends when it is told to, and as
// an observer reads the cgroup files of its node's containers.
//
//	GET /work?ms=20     use 20 ms of CPU time, then answer
//	GET /hold?mib=40    use 40 MiB in all from now on
//	GET /ready?is=false fail /healthz from now on; true: pass it again
//	GET /exit           end
//	GET /metrics        metrics of its own, whose values are told: see families
//	GET /rate?SERIES=5  let the series grow by 5 per second from now on, as packets_total or
//	                    http_requests_total{code="200",path="/"}
//	GET /set?SERIES=5   give it this value
//	GET /fail?404       answer 404 to /metrics from now on; html, hang; empty: be good again
//	GET /cgroup?id=ID&for=30s   the observer: samples of the cgroup of container ID, ten a second, as JSON
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // this is main
}

// run does what the flags say until it is told to end, and returns the exit code.
func run() (int, error) {
	cpu := flag.Int("cpu", 0, "millicores to use")
	period := flag.Duration("period", 0, "use -cpu for this long, then nothing for as long, and so on; 0 = always")
	mib := flag.Int("memory", 0, "MiB to use in all, the program's own included")
	listen := flag.String("listen", "", "address to serve requests on")
	unready := flag.Bool("unready", false, "fail /healthz until told otherwise")
	cgroups := flag.String("cgroups", "", "directory of the node's cgroups, to be an observer")
	exitAfter := flag.Duration("exit-after", 0, "end after this long; 0 = when told to")
	linger := flag.Duration("linger", 0, "go on for this long after SIGTERM")
	file := flag.String("file", "", "a file to be there, with -content, as long as this runs")
	content := flag.String("content", "", "what is in -file")
	exitCode := flag.Int("exit-code", 0, "exit code of -exit-after")
	metrics := newPage(time.Now)
	flag.Func("rate", "SERIES=5: let a series of /metrics grow by 5 per second; may be repeated", metrics.rate)
	flag.Func("set", "SERIES=5: give a series of /metrics this value; may be repeated", metrics.set)
	flag.Func("fail", "what is wrong with /metrics: a status such as 404, html or hang", metrics.fail)
	flag.Parse()

	if err := holdMemory(*mib); err != nil {
		return 0, err
	}
	if *file != "" {
		defer os.Remove(*file)
		if err := os.WriteFile(*file, []byte(*content), 0o600); err != nil {
			return 0, err
		}
	}
	if *cpu > 0 {
		go burn(*cpu, *period)
	}
	failed, exit := make(chan error, 1), make(chan struct{}, 1)
	if *listen != "" {
		go func() { failed <- serve(*listen, *cgroups, *unready, metrics, exit) }()
	}
	signal.Ignore(syscall.SIGCHLD) // as the first process of a pod: then the kernel reaps orphans
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	var end <-chan time.Time
	if *exitAfter > 0 {
		end = time.After(*exitAfter)
	}
	select {
	case err := <-failed:
		return 0, err
	case <-signals:
		<-time.After(*linger)
		return 0, nil
	case <-exit:
		return 0, nil
	case <-end:
		return *exitCode, nil
	}
}

func serve(address, cgroups string, isUnready bool, metrics *page, exit chan<- struct{}) error {
	var unready atomic.Bool
	unready.Store(isUnready)
	handle := func(path string, h func(http.ResponseWriter, *http.Request) error) {
		http.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	handle("/healthz", func(http.ResponseWriter, *http.Request) error {
		if unready.Load() {
			return errors.New("told to be unready")
		}
		return nil
	})
	handle("/ready", func(_ http.ResponseWriter, r *http.Request) error {
		is, err := strconv.ParseBool(r.FormValue("is"))
		unready.Store(!is)
		return err
	})
	handle("/exit", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Length", "0") // so that it is the whole answer
		if err := http.NewResponseController(w).Flush(); err != nil {
			return err
		}
		select {
		case exit <- struct{}{}:
		default: // it was told already
		}
		return nil
	})
	handle("/metrics", metrics.serve)
	for path, f := range map[string]func(string) error{
		"/rate": metrics.rate, "/set": metrics.set, "/fail": metrics.fail,
	} {
		handle(path, func(_ http.ResponseWriter, r *http.Request) error {
			text, err := url.QueryUnescape(strings.TrimSuffix(r.URL.RawQuery, "="))
			if err != nil {
				return err
			}
			return f(text)
		})
	}
	handle("/work", func(_ http.ResponseWriter, r *http.Request) error {
		ms, err := strconv.Atoi(r.FormValue("ms"))
		work(time.Duration(ms) * time.Millisecond)
		return cmp.Or(err, metrics.count(`http_requests_total{code="200",path="/work"}`))
	})
	handle("/hold", func(_ http.ResponseWriter, r *http.Request) error {
		mib, err := strconv.Atoi(r.FormValue("mib"))
		return cmp.Or(err, holdMemory(mib))
	})
	handle("/cgroup", func(w http.ResponseWriter, r *http.Request) error {
		return observe(w, r, cgroups)
	})
	s := &http.Server{Addr: address, ReadHeaderTimeout: 10 * time.Second}
	return s.ListenAndServe()
}
