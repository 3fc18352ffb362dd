package customserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"metrics-server/pkg/adapterconfig"
	"metrics-server/pkg/appmetrics"
	"metrics-server/pkg/backend"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/schedule"
)

// rules define what the names of metrics mean in a backend, by a configuration of prometheus-adapter.
type rules struct {
	backend   string
	config    *adapterconfig.Config
	text      string // from which config was read
	nanAsZero bool   // adminfile.Adapter.NaNAsZero
}

// same reports whether r and o, which may be nil, are the same rules.
func (r *rules) same(o *rules) bool {
	return r == o || r != nil && o != nil && r.backend == o.backend && r.text == o.text && r.nanAsZero == o.nanAsZero
}

// discoverEvery is how often the series of rules with a pattern instead of a name are discovered.
const discoverEvery = time.Minute

// discovery finds the names of the series that rules select. backends.mu guards it.
type discovery struct {
	server *server // polls
	found  map[backend.Expression]*discovered
}

// discovered is the result of one query.
type discovered struct {
	subscription *backend.Subscription
	answer       *backend.Answer // the last one that was used
	names        []string        // in answer, sorted
	changed      bool            // names have changed since the last call of discovery.retain
	// called has the names by rule and by the metric to which the rule maps them. It is kept because matching all names
	// against the patterns of a rule takes milliseconds.
	called map[*adapterconfig.Rule]map[string][]string
}

// discoveryError says that it is not known yet which rule has a metric, or that the series which exist do not allow a
// query. It may go away.
type discoveryError struct {
	error
	unknown bool // it is not known which series exist
}

// newDiscovery returns a discovery that asks the backend of s, and calls onResult after each query.
func newDiscovery(s *server, onResult func(context.Context, schedule.Report)) *discovery {
	c := s.config
	c.Interval, c.Timeout = discoverEvery, 0
	return &discovery{
		server: &server{
			config: s.config, client: s.client,
			poller: backend.NewPoller(backend.PollerConfig{Config: c, Backend: s.client, OnResult: onResult}),
		},
		found: map[backend.Expression]*discovered{},
	}
}

// of returns the result of a query for names.
func (d *discovery) of(query string) (*discovered, error) {
	e, err := backend.Names(query)
	if err != nil {
		return nil, err
	}
	known := d.found[e]
	if known == nil {
		known = &discovered{subscription: d.server.poller.Subscribe(e)}
		d.found[e] = known
	}
	return known, nil
}

// mapped returns the names of the series that a rule maps to metric.
func (d *discovered) mapped(r *adapterconfig.Rule, metric string) ([]string, error) {
	if err := d.read(time.Now()); err != nil {
		return nil, discoveryError{fmt.Errorf("the series of %s in the configuration of prometheus-adapter are not known: %w",
			r.Path, err), true}
	}
	called := d.called[r]
	if called == nil {
		called = map[string][]string{}
		for _, name := range d.names {
			if as, ok := r.MetricName(name); ok {
				called[as] = append(called[as], name)
			}
		}
		d.called[r] = called
	}
	return called[metric], nil
}

// read takes over the last answer.
func (d *discovered) read(now time.Time) error {
	a, err := d.subscription.Answer(now)
	if err != nil || a == d.answer {
		return err
	}
	names := make([]string, 0, len(a.Samples))
	for _, s := range a.Samples {
		names = append(names, s.Labels.Get(model.MetricNameLabel))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if d.answer == nil || !slices.Equal(names, d.names) {
		d.names, d.called, d.changed = names, map[*adapterconfig.Rule]map[string][]string{}, true
	}
	d.answer = a
	return nil
}

// read takes over the last answers.
func (d *discovery) read(now time.Time) {
	if d == nil {
		return
	}
	for _, known := range d.found {
		_ = known.read(now) // without an answer, nothing has changed
	}
}

// retain ends the queries that are not needed. The changes of the others are known now.
func (d *discovery) retain(needed map[*discovered]bool) {
	if d == nil {
		return
	}
	for e, known := range d.found {
		if known.changed = false; !needed[known] {
			known.subscription.Close()
			delete(d.found, e)
		}
	}
}

// ruleLocked gives n the meaning that a rule has for its name. The error is adapterconfig.ErrNotFound if there is no
// such rule.
func (b *backends) ruleLocked(n *remote) error {
	selector, err := selectorOf(n.Requirements)
	if err != nil {
		return err
	}
	series, _ := appmetrics.RemoteSeries(n.Name)
	var missing error
	discover := func(r *adapterconfig.Rule, query string) ([]string, error) {
		known, err := b.discovery.of(query)
		if err != nil {
			return nil, err
		}
		n.discovered = append(n.discovered, known)
		if missing == nil && r.Has(series, n.Name) {
			missing = discoveryError{fmt.Errorf("%s in the configuration of prometheus-adapter has metric %q, and backend %q "+
				"has no series %s for it: check that it is scraped, and what seriesQuery selects", r.Path, n.Name,
				b.rules.backend, series), false}
		}
		return known.mapped(r, n.Name)
	}
	var query string
	var of adapterconfig.Labels
	if n.Type == autoscalingv2.ExternalMetricSourceType {
		query, err = b.rules.config.QueryExternal(n.Name, n.Namespace, selector, discover)
	} else {
		r := requestOf(n.Want, selector)
		query, of, err = b.rules.config.Query(r, discover)
		if errors.Is(err, adapterconfig.ErrMixed) {
			for _, p := range n.Pods {
				r.Names = append(r.Names, p.Name)
			}
			if len(r.Names) == 0 {
				return noPods(n.Want)
			}
			query, of, err = b.rules.config.Query(r, discover)
		}
	}
	_, ofSeries := errors.AsType[*adapterconfig.SeriesError](err)
	switch {
	case ofSeries:
		return discoveryError{err, false}
	case missing != nil && errors.Is(err, adapterconfig.ErrNotFound):
		return missing // by name, it would mean something else until the series are discovered
	case err != nil:
		return err
	}
	n.ruled, n.labels = true, of
	n.nanAsZero = b.rules.nanAsZero && n.Type != autoscalingv2.ExternalMetricSourceType
	keep := of.Name
	if of.Namespace != of.Name && of.Namespace != "" {
		keep += "," + of.Namespace
	}
	n.expression, err = backend.Trust(query, n.Namespace, keep)
	return err
}

// requestOf returns a metric of type Pods or Object as a request to the rules.
func requestOf(w *demand.Want, selector labels.Selector) adapterconfig.Request {
	r := adapterconfig.Request{
		Metric: w.Name, Namespace: w.Namespace, Selector: selector,
		Resource: adapterconfig.Resource{Plural: "pods", Singular: "pod"},
	}
	if w.Type == autoscalingv2.ObjectMetricSourceType {
		r.Names = []string{w.Object}
		r.Resource = adapterconfig.Resource{
			Group: w.Resource.Group, Plural: w.Resource.Resource, Singular: strings.ToLower(w.Describes.Kind),
		}
		if r.Resource.String() == "namespaces" {
			r.Namespace, r.Names = "", []string{w.Namespace} // no other one, whatever the autoscaler says
		}
	}
	return r
}

// selectorOf returns the selector of a metric. A label with one value is matched as text, not as a pattern.
func selectorOf(all []metav1.LabelSelectorRequirement) (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: all})
	if err != nil {
		return nil, err
	}
	requirements, _ := selector.Requirements()
	plain := labels.NewSelector()
	for _, r := range requirements {
		operator := r.Operator()
		if len(r.Values()) == 1 {
			switch operator {
			case selection.In:
				operator = selection.Equals
			case selection.NotIn:
				operator = selection.NotEquals
			}
		}
		one, err := labels.NewRequirement(r.Key(), operator, r.Values().List())
		if err != nil {
			return nil, err
		}
		plain = plain.Add(*one)
	}
	return plain, nil
}
