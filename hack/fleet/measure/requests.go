package measure

import (
	"context"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"metrics-server/hack/fleet/binary"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/proc"
)

// requests measures each kind of request.
func (r *run) requests(ctx context.Context) error {
	p := r.target()
	all, one := binary.Group+"/pods", binary.Group+"/namespaces/"+p.Namespace+"/pods"
	kinds := []struct {
		name string
		q    binary.Request
		most int // the number of requests that is enough
	}{
		{"all pods, JSON", binary.Request{Path: all, Accept: binary.JSON}, 10},
		{"all pods, JSON, gzip", binary.Request{Path: all, Accept: binary.JSON, Gzip: true}, 10},
		{"all pods, protobuf", binary.Request{Path: all, Accept: binary.Protobuf}, 10},
		{"all pods, table", binary.Request{Path: all, Accept: binary.Table}, 10},
		{"pods of a workload, protobuf", binary.Request{
			Path:   one + "?labelSelector=app%3D" + p.Workload.Name,
			Accept: binary.Protobuf,
		}, 1000},
		{"one pod, protobuf", binary.Request{Path: one + "/" + p.Name, Accept: binary.Protobuf}, 1000},
		{"all nodes, JSON", binary.Request{Path: binary.Group + "/nodes", Accept: binary.JSON}, 50},
	}
	for _, k := range kinds {
		r.say("request: %s", k.name)
		// The first one is not counted: it pays for connections and reviews.
		n, err := r.client.Do(ctx, k.q, io.Discard)
		if err != nil {
			return r.server.Failure(err)
		}
		result := Request{Name: k.name, Bytes: n}
		var took durations
		before, err := r.read()
		if err != nil {
			return err
		}
		for len(took) < k.most && more(len(took), time.Since(before.at)) {
			begin := time.Now()
			if _, err := r.client.Do(ctx, k.q, io.Discard); err != nil {
				return r.server.Failure(err)
			}
			took = append(took, time.Since(begin))
		}
		after, err := r.read()
		if err != nil {
			return err
		}
		w := after.since(before)
		result.Count = len(took)
		result.Latency = seconds(took.quantile(0.5))
		scraping := time.Duration(r.report.Steady.MilliCores / 1000 * float64(w.wall))
		result.CPU = seconds(w.server-scraping) / float64(len(took))
		r.report.Requests = append(r.report.Requests, result)
		err = r.profileRequest(ctx, k.name, func() error {
			_, err := r.client.Do(ctx, k.q, io.Discard)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// more reports whether a kind of request should be measured again, after n times that took spent in
// total.
func more(n int, spent time.Duration) bool {
	const budget = 5 * time.Second
	if n < 3 {
		return spent < 4*budget
	}
	return spent < budget
}

// target returns a pod on a working node, of a workload whose other pods are on working nodes, too.
// Churn may delete it, so it is determined again for each use.
func (r *run) target() *cluster.Pod {
	for _, ns := range r.samples {
		pods, _ := r.cluster.Pods(ns)
		for _, p := range pods {
			if !p.Machine.Faulty && !p.Stateful {
				return p
			}
		}
	}
	return nil
}

// concurrent is the number of concurrent lists.
const concurrent = 4

// lists measures the memory of several lists of all pods at once.
func (r *run) lists(ctx context.Context) error {
	r.say("%d lists at once", concurrent)
	if err := proc.ResetPeak(r.server.PID()); err != nil {
		r.say("the peak of the server's memory is that since its start: %v", err)
	}
	var g errgroup.Group
	for range concurrent {
		g.Go(func() error {
			c := binary.NewClient(r.server.URL)
			defer c.Close()
			_, err := c.Do(ctx, binary.Request{Path: binary.Group + "/pods", Accept: binary.JSON}, io.Discard)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return r.server.Failure(err)
	}
	m, err := proc.MemoryOf(r.server.PID())
	r.report.ListsPeak = m.Peak
	return err
}

// final checks all that is served.
func (r *run) final(ctx context.Context) error {
	r.say("check of all that is served")
	if err := r.look(ctx); err != nil {
		return err
	}
	stats, err := r.kubelets.Stats()
	r.report.Faults = stats.Faults
	return err
}

// look requests all pods and nodes and checks them.
func (r *run) look(ctx context.Context) error {
	pods := r.checker.Pods("")
	b, err := r.client.Get(ctx, binary.Request{Path: binary.Group + "/pods", Accept: binary.Protobuf})
	if err != nil {
		return r.server.Failure(err)
	}
	if err := pods.AllPods(b, nil); err != nil {
		return err
	}
	nodes := r.checker.Nodes()
	if b, err = r.client.Get(ctx, binary.Request{Path: binary.Group + "/nodes", Accept: binary.Protobuf}); err != nil {
		return r.server.Failure(err)
	}
	return nodes.AllNodes(b)
}
