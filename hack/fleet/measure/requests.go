package measure

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"metrics-server/hack/fleet/cluster"
	"metrics-server/hack/fleet/proc"
	"metrics-server/hack/fleet/truth"
)

const (
	jsonType     = "application/json"
	protobufType = "application/vnd.kubernetes.protobuf"
	tableType    = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
)

// requests measures each kind of request.
func (r *run) requests(ctx context.Context) error {
	p := r.target()
	all, one := group+"/pods", group+"/namespaces/"+p.Namespace+"/pods"
	kinds := []struct {
		name string
		q    request
		most int // how many are enough
	}{
		{"all pods, JSON", request{path: all, accept: jsonType}, 10},
		{"all pods, JSON, gzip", request{path: all, accept: jsonType, gzip: true}, 10},
		{"all pods, protobuf", request{path: all, accept: protobufType}, 10},
		{"all pods, table", request{path: all, accept: tableType}, 10},
		{"pods of a workload, protobuf", request{path: one + "?labelSelector=app%3D" + p.Workload.Name, accept: protobufType}, 1000},
		{"one pod, protobuf", request{path: one + "/" + p.Name, accept: protobufType}, 1000},
		{"all nodes, JSON", request{path: group + "/nodes", accept: jsonType}, 50},
	}
	for _, k := range kinds {
		r.say("request: %s", k.name)
		// The first one is not counted: it pays for connections and reviews.
		n, err := r.client.do(ctx, k.q, io.Discard)
		if err != nil {
			return r.server.failure(err)
		}
		result := Request{Name: k.name, Bytes: n}
		var took durations
		before, err := r.read()
		if err != nil {
			return err
		}
		for len(took) < k.most && more(len(took), time.Since(before.at)) {
			begin := time.Now()
			if _, err := r.client.do(ctx, k.q, io.Discard); err != nil {
				return r.server.failure(err)
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
			_, err := r.client.do(ctx, k.q, io.Discard)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// more reports whether a kind of request that was measured n times in that time is to be measured again.
func more(n int, spent time.Duration) bool {
	const budget = 5 * time.Second
	if n < 3 {
		return spent < 4*budget
	}
	return spent < budget
}

// target is a pod on a node that answers, of a workload of which that is true, too. Churn may delete it, so it is
// looked for when it is needed.
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

// concurrent is how many lists are asked for at once.
const concurrent = 4

// lists measures the memory of several lists of all pods at once.
func (r *run) lists(ctx context.Context) error {
	r.say("%d lists at once", concurrent)
	if err := proc.ResetPeak(r.server.pid()); err != nil {
		r.say("the peak of the server's memory is that since its start: %v", err)
	}
	var g errgroup.Group
	for range concurrent {
		g.Go(func() error {
			c := newClient(r.client.url)
			defer c.close()
			_, err := c.do(ctx, request{path: group + "/pods", accept: jsonType}, io.Discard)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return r.server.failure(err)
	}
	m, err := proc.MemoryOf(r.server.pid())
	r.report.ListsPeak = m.Peak
	return err
}

// final checks all that is served.
func (r *run) final(ctx context.Context) error {
	r.say("check of all that is served")
	pods := r.checker.Pods("")
	if err := r.check(ctx, "/pods", pods.Answered, func(item []byte) error {
		var m metricsv1beta1.PodMetrics
		if err := m.Unmarshal(item); err != nil {
			return err
		}
		pods.Pod(&m)
		return nil
	}); err != nil {
		return err
	}
	pods.EndPods()
	nodes := r.checker.Nodes()
	if err := r.check(ctx, "/nodes", nodes.Answered, func(item []byte) error {
		var m metricsv1beta1.NodeMetrics
		if err := m.Unmarshal(item); err != nil {
			return err
		}
		nodes.Node(&m)
		return nil
	}); err != nil {
		return err
	}
	nodes.EndNodes()
	stats, err := r.kubelets.Stats()
	r.report.Faults = stats.Faults
	return err
}

func (r *run) check(ctx context.Context, path string, answered func(time.Time), item func([]byte) error) error {
	b, err := r.client.get(ctx, request{path: group + path, accept: protobufType})
	if err != nil {
		return r.server.failure(err)
	}
	answered(time.Now())
	if err := truth.EachItem(b, item); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
