package ui

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
)

const (
	doctorInterval = 5 * time.Minute // between two runs of the doctor
	doctorTimeout  = 2 * time.Minute // of one run
	// maxObjects is how many objects a finding lists, and maxAutoscalers how many autoscalers have findings of their own.
	maxObjects     = 100
	maxAutoscalers = 200
)

// diagnosis is what the doctor found. It is immutable.
type diagnosis struct {
	Findings
	version uint64
	about   map[Object][]int // the IDs of findings that are not OK
	nextID  int              // greater than all IDs of findings so far
}

// examined is what a run of the doctor returns.
type examined struct {
	lines []doctor.Line
	nodes int // in the cluster
}

// findings runs the doctor, never twice at once. It is safe for concurrent use.
type findings struct {
	examine func(context.Context) (examined, error)
	now     chan struct{} // has room for one request to run now
	current atomic.Pointer[diagnosis]
}

func newFindings(examine func(context.Context) (examined, error)) *findings {
	f := &findings{examine: examine, now: make(chan struct{}, 1)}
	f.current.Store(&diagnosis{Findings: Findings{Status: doctor.Unknown, Lines: []Finding{}}})
	return f
}

// start makes the doctor run now, unless it is running.
func (f *findings) start() {
	select {
	case f.now <- struct{}{}:
	default:
	}
}

// run runs the doctor at once, at each request and from time to time, until ctx ends.
func (f *findings) run(ctx context.Context) {
	for {
		f.once(ctx)
		select {
		case <-ctx.Done():
			return
		case <-f.now:
		case <-time.After(doctorInterval):
		}
	}
}

func (f *findings) once(ctx context.Context) {
	d := *f.current.Load()
	d.version++
	d.Running = true
	running := d
	f.current.Store(&running)

	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	e, err := f.examine(ctx)
	if err != nil { // the previous findings remain
		d.Error = err.Error()
	} else {
		d = diagnose(e, time.Now().UTC(), d.nextID)
	}
	d.version = running.version + 1
	d.Running = false
	select {
	case <-f.now: // requests during the run are answered by it
	default:
	}
	f.current.Store(&d)
}

// examine runs the doctor for the cluster and for its autoscalers.
func (c *Config) examine(ctx context.Context) (examined, error) {
	report, err := doctor.Run(ctx, c.Doctor)
	if err != nil {
		if doctor.NoAnswer(err) && c.Hint != "" {
			err = fmt.Errorf("%w; %s", err, c.Hint)
		}
		return examined{}, err
	}
	scalers, err := hpa.Run(ctx, hpa.Config{Rest: c.Rest, Version: c.Version, Namespace: c.Namespace, File: c.File})
	e := examined{lines: report.Checks, nodes: len(report.Nodes)}
	if err != nil {
		e.lines = append(e.lines, doctor.NewLine("hpa", doctor.Unknown, "the autoscalers cannot be explained", err.Error(),
			"resolve this error, and run the doctor again"))
		return e, nil
	}
	lines := slices.DeleteFunc(scalers.Checks, func(l doctor.Line) bool { return l.Status == doctor.OK })
	if more := len(lines) - maxAutoscalers; more > 0 {
		slices.SortStableFunc(lines, worstFirst)
		lines = append(lines[:maxAutoscalers], doctor.NewLine("hpa", lines[maxAutoscalers].Status,
			fmt.Sprintf("findings of %s more", doctor.Plural(more, "HorizontalPodAutoscaler")), "the page lists only some",
			"run metrics-server doctor hpa for all"))
	}
	e.lines = append(e.lines, lines...)
	return e, nil
}

func worstFirst(a, b doctor.Line) int {
	switch {
	case a.Status == b.Status:
		return 0
	case doctor.Worse(a.Status, b.Status) == a.Status:
		return -1
	}
	return 1
}

// diagnose sorts what was examined by how bad it is, and by what it is about. The IDs of the findings begin with
// firstID. Each run has other IDs, because the page may show rows that are older than the findings, for example while a
// table is paused: their IDs must not name findings about other objects.
func diagnose(e examined, now time.Time, firstID int) diagnosis {
	d := diagnosis{
		Findings: Findings{Checked: &now, Status: doctor.OK, Lines: []Finding{}}, about: map[Object][]int{},
		nextID: firstID + len(e.lines),
	}
	slices.SortStableFunc(e.lines, worstFirst)
	for i, l := range e.lines {
		id := firstID + i
		d.Status = doctor.Worse(d.Status, l.Status)
		objects := slices.Clip(l.Objects)
		// A finding about all of several nodes is about the cluster. As one about each node, it would mark every row.
		if n := len(l.Nodes); n == 1 || n < e.nodes {
			for _, name := range l.Nodes {
				objects = append(objects, nodeObject(name))
			}
		}
		if l.Status != doctor.OK {
			for _, o := range objects {
				d.about[o] = append(d.about[o], id)
			}
		}
		l.Nodes, l.Objects = nil, nil
		d.Lines = append(d.Lines, Finding{
			Line: l, ID: id, ObjectCount: len(objects), Objects: append([]Object{}, objects[:min(len(objects), maxObjects)]...),
		})
	}
	return d
}

func nodeObject(name string) Object { return Object{Kind: "Node", Name: name} }

// of returns the IDs of the findings about o.
func (d *diagnosis) of(o Object) []int {
	if ids := d.about[o]; ids != nil {
		return ids
	}
	return []int{}
}
