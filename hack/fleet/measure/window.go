package measure

import (
	"context"
	"os"
	"time"

	"metrics-server/hack/fleet/kubelets"
	"metrics-server/hack/fleet/proc"
)

// self is this process.
var self = os.Getpid()

// reading is the resource usage up to some moment.
type reading struct {
	at            time.Time
	server, fleet time.Duration // CPU
	answering     time.Duration // the kubelets' part of fleet
	machine       proc.Machine
	kubelets      kubelets.Stats
}

// window is the difference of two readings.
type window struct {
	wall                     time.Duration
	server, fleet, answering time.Duration // CPU
	busy                     float64       // of the machine's processors, from 0 to 1
	answers                  int64
}

func (r *run) read() (reading, error) {
	m, err := read(r.server.PID(), r.kubelets.PIDs()...)
	if err != nil {
		return m, r.server.Failure(err)
	}
	m.kubelets, err = r.kubelets.Stats()
	return m, err
}

// read reads what a server, the processes that answer its scrapes, and this process used.
func read(server int, answering ...int) (reading, error) {
	m := reading{at: time.Now()}
	var err error
	if m.server, err = proc.CPU(server); err != nil {
		return m, err
	}
	for _, pid := range answering {
		d, err := proc.CPU(pid)
		if err != nil {
			return m, err
		}
		m.answering += d
	}
	rest, err := proc.CPU(self)
	if err != nil {
		return m, err
	}
	m.fleet = m.answering + rest
	m.machine, err = proc.MachineNow()
	return m, err
}

func (m reading) since(before reading) window {
	return window{
		wall:      m.at.Sub(before.at),
		server:    m.server - before.server,
		fleet:     m.fleet - before.fleet,
		answering: m.answering - before.answering,
		busy:      m.machine.Since(before.machine),
		answers:   m.kubelets.Answers - before.kubelets.Answers,
	}
}

// cores returns how many processors a CPU time kept busy.
func (w window) cores(cpu time.Duration) float64 { return cpu.Seconds() / w.wall.Seconds() }

// watchMemory returns the memory of a process at the end of a span, and its largest RSS until then.
func watchMemory(ctx context.Context, pid int, end time.Time) (last proc.Memory, most int64, err error) {
	for time.Now().Before(end) {
		if err := wait(ctx, min(time.Second, time.Until(end))); err != nil {
			return last, most, err
		}
		if last, err = proc.MemoryOf(pid); err != nil {
			return last, most, err
		}
		most = max(most, last.RSS)
	}
	return last, most, nil
}

// late measures how late this process is woken up, until ctx ends. If the processors have too much
// to do, all measured times are too long.
func late(ctx context.Context) durations {
	const period = 10 * time.Millisecond
	var all durations
	for {
		before := time.Now()
		t := time.NewTimer(period)
		select {
		case <-ctx.Done():
			t.Stop()
			return all
		case <-t.C:
			all = append(all, max(time.Since(before)-period, 0))
		}
	}
}
