package kubeapi

import (
	"encoding/json"
	"net/url"
)

// NotesHeader is the header, with any value, by which metrics-server doctor asks the custom metrics server for Notes,
// and the header in which an answer has them. Kubernetes' aggregation passes both on.
const NotesHeader = "Metrics-Server-Notes"

// Notes are what the custom metrics server knows besides its answer.
type Notes struct {
	// Backend has the metric. "" if pods are scraped for it, or if it is not wanted.
	Backend string `json:"backend,omitempty"`
	// Expression is the query that is sent to Backend. "" if the metric is Named or Ruled, or is not queried.
	Expression string `json:"expression,omitempty"`
	// Named says that the administrator's file names the metric.
	Named bool `json:"named,omitempty"`
	// Ruled says that a rule of prometheus-adapter's configuration defines the metric.
	Ruled bool `json:"ruled,omitempty"`

	// DefaultBackend has the metrics whose autoscaler does not say where they come from. "" if pods are scraped for them.
	DefaultBackend string `json:"defaultBackend,omitempty"`
	// InvalidFile says that the administrator's file (--config) cannot be used, so the last good version stays in effect.
	InvalidFile bool `json:"invalidFile,omitempty"`
	// LeftOutRules is how many rules of prometheus-adapter's configuration cannot be used.
	LeftOutRules int `json:"leftOutRules,omitempty"`
	// FailingBackends are the backends with more than half of their latest queries failed, sorted by name.
	FailingBackends []BackendNote `json:"failingBackends,omitempty"`
}

// BackendNote says how the last queries of a backend went.
type BackendNote struct {
	Name    string `json:"name"`
	Queries int    `json:"queries"` // different ones
	Failing int    `json:"failing"`
}

// Encode returns n as a header has it.
func (n *Notes) Encode() string {
	b, err := json.Marshal(n)
	if err != nil {
		panic(err) // it has only texts and numbers
	}
	return url.QueryEscape(string(b)) // expressions may have characters that a header cannot have
}

// DecodeNotes reads what Encode wrote. It returns nil for anything else, such as the empty header of another program.
func DecodeNotes(header string) *Notes {
	text, err := url.QueryUnescape(header)
	if err != nil {
		return nil
	}
	n := &Notes{}
	if err := json.Unmarshal([]byte(text), n); err != nil {
		return nil
	}
	return n
}
