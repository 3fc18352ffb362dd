package customserver

import (
	"sync"
	"time"

	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
)

// compiled is a query, or why there is none. It stays the same when only the pods of a Want change.
type compiled struct {
	*appmetrics.Query
	err     error
	number  uint64
	limited bool  // err is that of a limit
	size    int64 // bytes that count against the memory limit
	asks    asks

	mu     sync.Mutex
	costly error // says which limit it exceeded; valid before until
	until  time.Time
}

// asks says who asks for a query: the metrics of each have a limit of their own at an endpoint.
type asks uint8

const (
	podAutoscalers asks = iota // those of the namespace of the pods
	allSelectors               // autoscalers of all namespaces, with a selector, for a metric that an administrator names
	administrator              // the file, for the values of all objects: it limits how many there are
)

func asksFor(w *demand.Want) asks {
	switch {
	case !w.Series:
		return podAutoscalers
	case w.Selector != "":
		return allSelectors
	}
	return administrator
}

// costlyFor is how long an expression that exceeded a limit is not evaluated again.
const costlyFor = 30 * time.Second

// refusal returns why the query is not evaluated at now: it exceeded a limit recently.
func (c *compiled) refusal(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.until) {
		return c.costly
	}
	return nil
}

// refuse remembers the error of an answer if an expression of the HPA exceeded a limit. The cost of
// default expressions is known: if one takes too long, the server is short of CPU, perhaps for a
// moment only.
func (c *compiled) refuse(a *appmetrics.Answer, now time.Time) {
	if !a.Costly() || c.Default() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.costly, c.until = a.Err(), now.Add(costlyFor)
}

// metricOf returns what definition has to know of w.
func metricOf(w *demand.Want) *demand.Metric {
	return &demand.Metric{
		Name: w.Name, Type: w.Type, Selector: w.Requirements, Definition: w.Definition, ExpressionAt: w.ExpressionAt,
	}
}

// payer returns whose share of the memory the query of w counts towards. The namespace of a gateway
// does not pay for the selectors of autoscalers in other namespaces: there can be very many.
func payer(w *demand.Want) string {
	if asksFor(w) == allSelectors {
		return definition.SelectorsOwner
	}
	return w.Namespace
}

func (c *collector) compileLocked(w *demand.Want) *compiled {
	c.number++
	q, err := definition.Compile(metricOf(w))
	if err != nil {
		return &compiled{err: err, number: c.number}
	}
	if err := c.limits.take(memoryLimit, payer(w), q.Size()); err != nil {
		return &compiled{err: err, number: c.number, limited: true}
	}
	return &compiled{Query: q, number: c.number, size: q.Size(), asks: asksFor(w)}
}

// releaseLocked gives back the memory of the query of w, which nobody uses any more.
func (c *collector) releaseLocked(w *wanted) {
	c.limits.memory.Give(payer(w.Want), w.query.size)
}
