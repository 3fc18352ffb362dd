package apiserver_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"metrics-server/hack/fleet/apiserver"
	"metrics-server/hack/fleet/cluster"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubelet/kubelettest"
)

// TestAutoscalers has the custom metrics server's own reader find the pods of autoscalers: by HPAs, discovery, scale
// and pods, in the namespaces and in the whole cluster.
func TestAutoscalers(t *testing.T) {
	for name, workloads := range map[string]int{"in one namespace": 8, "in the whole cluster": 420} {
		t.Run(name, func(t *testing.T) {
			c := cluster.New(cluster.Config{Nodes: 3, Pods: workloads, Containers: 1, Replicas: 3, Now: time.Now()})
			s, err := apiserver.Start(apiserver.Config{Cluster: c, Token: "good", LoadToken: "load"})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			all := c.Workloads()
			for _, w := range all[1:] {
				c.AddAutoscaler(w, "http_requests_total")
			}
			wants := follow(t, s)
			wants.eventually(t, "all autoscalers are found", func(pods map[string]int) bool {
				return len(pods) == workloads-1 && wants.served(pods, 3)
			})
			c.AddAutoscaler(all[0], "worker_queue_length")
			wants.eventually(t, "a new one is", func(pods map[string]int) bool {
				return len(pods) == workloads && wants.served(pods, 3)
			})
			some, _ := c.Pods(all[0].Namespace)
			quiet := func(*cluster.Machine, []kubelettest.Pod) error { return nil }
			if err := c.Delete(some[0], time.Now(), quiet); err != nil {
				t.Fatal(err)
			}
			gone := some[0].Namespace + "/" + some[0].Workload.Name
			wants.eventually(t, "a pod goes", func(pods map[string]int) bool { return pods[gone] == 2 })
			c.RemoveAutoscaler(all[1])
			wants.eventually(t, "an autoscaler goes", func(pods map[string]int) bool { return len(pods) == workloads-1 })
			if unknown := s.Unknown(); len(unknown) > 0 {
				t.Errorf("paths that are not known: %q", unknown)
			}
		})
	}
}

// wanted is what a demand.Demand reports.
type wanted struct {
	mu   sync.Mutex
	pods map[demand.Request]*demand.Want
}

// follow starts a demand.Demand that reads from s.
func follow(t *testing.T, s *apiserver.Server) *wanted {
	t.Helper()
	config := &rest.Config{
		Host: s.URL(), BearerToken: "good", QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: s.CA()},
	}
	scales := dynamic.NewForConfigOrDie(config)
	config.ContentConfig = rest.ContentConfig{ContentType: protobuf, AcceptContentTypes: protobuf + ",application/json"}
	client := kubernetes.NewForConfigOrDie(config)
	w := &wanted{pods: map[demand.Request]*demand.Want{}}
	d := demand.New(demand.Config{
		Client: client, Dynamic: scales,
		Mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		OnWant: func(one *demand.Want) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.pods[one.Request] = one
		},
		OnGone: func(r demand.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			delete(w.pods, r)
		},
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) }) // it returns nil
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return w
}

// served reports whether each has so many pods.
func (*wanted) served(pods map[string]int, each int) bool {
	for _, n := range pods {
		if n != each {
			return false
		}
	}
	return true
}

// eventually waits until the numbers of pods, by namespace and autoscaler, are as f wants them.
func (w *wanted) eventually(t *testing.T, what string, f func(pods map[string]int) bool) {
	t.Helper()
	var problems []string
	for begin := time.Now(); time.Since(begin) < 2*time.Minute; time.Sleep(20 * time.Millisecond) {
		pods := map[string]int{}
		problems = nil
		w.mu.Lock()
		for _, one := range w.pods {
			pods[one.Namespace+"/"+one.HPAs[0]] = len(one.Pods)
			if one.Err != nil {
				problems = append(problems, fmt.Sprintf("%s: %v", one.HPAs[0], one.Err))
			}
		}
		w.mu.Unlock()
		if len(problems) == 0 && f(pods) {
			return
		}
	}
	t.Fatalf("not so: %s; errors: %q", what, problems)
}
