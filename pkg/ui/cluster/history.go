package cluster

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"metrics-server/pkg/history"
	"metrics-server/pkg/history/historyclient"
	"metrics-server/pkg/kubeapi"
)

// historyRetry is the time to the next attempt to read a history.
const historyRetry = 5 * time.Minute

// readHistory reads the history of the metrics server, once, after all nodes and pods: it adds the past to those that
// are known.
func (c *Cluster) readHistory(ctx context.Context) {
	for c.waitsFor(Nodes) || c.waitsFor(Pods) {
		if !pause(ctx, time.Second) {
			return
		}
	}
	for {
		answers, err := c.fetchHistory(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		c.update(func(m *model) {
			s := m.sources[History]
			if err != nil {
				s.State, s.Remedy = judgeHistory(err)
				s.Error = err.Error()
				return
			}
			m.backfill(answers...)
			*s = Source{Name: History, State: Read, Updated: now}
			for _, a := range answers {
				s.Objects += len(a.Series)
			}
		})
		if err == nil || !pause(ctx, historyRetry) {
			return
		}
	}
}

// waitsFor reports whether a source has not been listed in full yet, but will be: a list that fails is tried again,
// while one that is denied or absent may never succeed.
func (c *Cluster) waitsFor(name SourceName) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.model.sources[name]
	return !s.listed && (s.State == Waiting || s.State == Failed)
}

func (c *Cluster) fetchHistory(ctx context.Context) (answers []*history.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	version, _, err := c.metricsVersion(ctx)
	if err != nil {
		return nil, err
	}
	last := max(LongPast*c.interval, time.Minute)
	queries := []history.Query{{Namespace: c.namespace, Last: last}}
	if c.namespace == "" { // first: a server without history answers with a list, and that of nodes is shorter
		queries = []history.Query{{Nodes: true, Last: last}, {Last: last}}
	}
	for _, q := range queries {
		a, err := historyclient.Fetch(ctx, c.client, version, q)
		if err != nil {
			return nil, err
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// judgeHistory returns the state of the history after an error, and the remedy.
func judgeHistory(err error) (State, string) {
	var none *history.NoHistoryError
	switch {
	case errors.As(err, &none):
		return Absent, "to see the past from before the program started, run this project's server with --history=2h"
	case apierrors.IsNotFound(err):
		return Absent, "install this project's server, and run it with --history=2h"
	case apierrors.IsForbidden(err):
		return Denied, "have an administrator allow you to list nodes and pods of " + kubeapi.MetricsGroup
	}
	return Failed, remedyOf(kubeapi.CauseOf(err))
}
