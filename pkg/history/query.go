package history

import (
	"fmt"
	"net/url"
	"time"
)

// Parameters of the URL.
const (
	ParameterHistory = "history"
	ParameterStep    = "step"
)

// Query says what is read. The caller has checked that the client may.
type Query struct {
	// Nodes selects all nodes. Otherwise Namespace selects one namespace and its workloads, or, if it
	// is empty, all of them.
	Nodes     bool
	Namespace string
	// Last is how far back to go.
	Last time.Duration
	// Step is the distance of the points, a multiple of a minute. Default: the least that makes no more
	// than defaultPoints.
	Step time.Duration
}

// defaultPoints is how many points are enough for a graph.
const defaultPoints = 240

// ParseDurations sets the durations of q to those of a URL's parameters, which are checked.
func (q *Query) ParseDurations(v url.Values) (err error) {
	q.Last, err = time.ParseDuration(v.Get(ParameterHistory))
	if err != nil || q.Last < time.Minute {
		return fmt.Errorf("%s=%s: give how far back to go, a minute or more, such as %s=2h",
			ParameterHistory, v.Get(ParameterHistory), ParameterHistory)
	}
	q.Step = 0
	if !v.Has(ParameterStep) {
		return nil
	}
	q.Step, err = time.ParseDuration(v.Get(ParameterStep))
	if err != nil || q.Step < time.Minute || q.Step > MaxRetention || q.Step%time.Minute != 0 {
		return fmt.Errorf("%s=%s: give whole minutes, at most %v, such as %s=10m",
			ParameterStep, v.Get(ParameterStep), MaxRetention, ParameterStep)
	}
	return nil
}

// Values returns the parameters of the URL that ParseDurations reads.
func (q *Query) Values() url.Values {
	v := url.Values{ParameterHistory: {q.Last.String()}}
	if q.Step != 0 {
		v.Set(ParameterStep, q.Step.String())
	}
	return v
}

// selects reports whether q selects a series.
func (q *Query) selects(k Key) bool {
	return k.isNode() == q.Nodes && (q.Nodes || q.Namespace == "" || q.Namespace == ownerOf(k))
}

// minutes returns the range and the step of q in minutes. More than kept is not there to read.
func (q *Query) minutes(kept int64) (last, step int64) {
	last = min(kept, int64(q.Last/time.Minute))
	if q.Step == 0 {
		return last, (last + defaultPoints - 1) / defaultPoints
	}
	return last, int64(q.Step / time.Minute)
}
