package history

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"
)

// The kind and the version of an answer.
const (
	AnswerKind    = "MetricsHistory"
	AnswerVersion = 1
)

// Header is an answer without its series. The package comment describes the fields.
type Header struct {
	Kind      string    `json:"kind"`
	Version   int       `json:"version"`
	Instance  string    `json:"instance"`
	Since     time.Time `json:"since"`
	Retention int64     `json:"retention"`
	Step      int64     `json:"step"`
	Start     time.Time `json:"start"`
	Points    int       `json:"points"`
	LeftOut   int       `json:"leftOut"`
}

// Answer is what a client gets.
type Answer struct {
	Header
	Series []Series `json:"series"`
}

// Series are the points of one node, namespace or workload. Entry i of each column belongs to the
// point First+i of the answer.
type Series struct {
	Key
	First   int     `json:"first"`
	CPU     []Value `json:"cpu"`    // cores
	Memory  []Value `json:"memory"` // bytes
	Pods    []Value `json:"pods,omitempty"`
	Missing []Value `json:"missing,omitempty"` // empty: none is missing
}

// Value is a number, or NaN for a gap, which is null in JSON.
type Value float64

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*v = Value(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(v))
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(v)) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(v))
}

// NoHistoryError says that a server keeps no history.
type NoHistoryError struct{ Reason string }

func (e *NoHistoryError) Error() string {
	return "the server of metrics.k8s.io has no history: " + e.Reason
}

// Decode reads an answer. The error is a *NoHistoryError if it is something else, such as the list
// of a server that does not know the parameter.
func Decode(r io.Reader) (*Answer, error) {
	a := &Answer{}
	if err := json.NewDecoder(r).Decode(a); err != nil {
		return nil, fmt.Errorf("decode the history: %w", err)
	}
	if a.Kind != AnswerKind {
		return nil, &NoHistoryError{
			fmt.Sprintf("it answered with a %q: it is another metrics server, or a release without --history", a.Kind),
		}
	}
	if a.Version != AnswerVersion {
		return nil, fmt.Errorf("the history has version %d, and this program reads version %d: "+
			"use the release of the server", a.Version, AnswerVersion)
	}
	for _, s := range a.Series {
		n := len(s.CPU)
		if len(s.Memory) != n || len(s.Pods) != 0 && len(s.Pods) != n || len(s.Missing) != 0 && len(s.Missing) != n ||
			s.First < 0 || s.First+n > a.Points {
			return nil, fmt.Errorf("decode the history: the columns of %+v do not fit together", s.Key)
		}
	}
	return a, nil
}
