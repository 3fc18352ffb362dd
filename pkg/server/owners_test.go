package server

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// The server asks once for each conflict, and believes the answer.
func TestOwners(t *testing.T) {
	for name, tc := range map[string]struct {
		on   string // the node in the API server's answer; empty: it does not know the pod
		want string
	}{
		"the API server says":  {on: "honest", want: "honest"},
		"it does not know":     {want: "liar"}, // the newer start
		"it says a third node": {on: "other"},  // neither of the two may speak for it
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset()
				if tc.on != "" {
					client = fake.NewClientset(&corev1.Pod{
						ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
						Spec:       corev1.PodSpec{NodeName: tc.on},
					})
				}
				s := store.New(store.Config{})
				o := newOwners(client, s)
				k := newSink(s, o, prometheus.NewRegistry())
				ctx, stop := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- o.run(ctx) }()

				for i := range 3 {
					for node, start := range map[string]time.Duration{"honest": -time.Hour, "liar": -time.Minute * 30} {
						now := time.Now()
						k.Record(node, contested(now, now.Add(start-time.Duration(i)*15*time.Second), uint64(i+1)*1e9), now)
					}
					time.Sleep(15 * time.Second)
				}
				synctest.Wait()
				var u sample.PodUsage
				if s.Pod("ns", "p", time.Now(), &u) != (tc.want != "") || u.Node != tc.want {
					t.Errorf("served as node %q says, want %q", u.Node, tc.want)
				}
				if n := len(client.Actions()); n != 1 {
					t.Errorf("%d requests, want 1", n)
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// contested is the answer of a node that lists the pod ns/p.
func contested(now, start time.Time, cpu uint64) *sample.Batch {
	return &sample.Batch{Containers: []sample.Container{{ID: new(sample.NewContainerID("ns", "p", "c")), Sample: sample.Sample{
		Time: sample.TimeOf(now), Start: sample.TimeOf(start), CPU: cpu, Memory: 1, Given: sample.CPU | sample.Memory | sample.Start,
	}}}}
}

// An answer may be on its way while the pod is made anew on another node: it is asked again.
func TestOwnersAnswerIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		asked := 0
		client.PrependReactor("get", "pods", func(k8stesting.Action) (bool, runtime.Object, error) {
			asked++
			if asked == 1 {
				time.Sleep(3 * time.Second)
				return true, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "old"}}, nil
			}
			return true, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "new"}}, nil
		})
		s := store.New(store.Config{})
		o := newOwners(client, s)
		k := newSink(s, o, prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.run(ctx) }()

		start, cpu := time.Now().Add(-time.Hour), uint64(0)
		list := func(nodes ...string) {
			now := time.Now()
			cpu += 1e9
			for _, node := range nodes {
				k.Record(node, contested(now, start, cpu), now)
			}
			time.Sleep(time.Second)
		}
		list("old", "liar") // asked for the first time
		s.RemovePod("ns", "p")
		list("old", "new")
		for range 6 {
			list("new")
			time.Sleep(5 * time.Second)
		}
		var u sample.PodUsage
		if !s.Pod("ns", "p", time.Now(), &u) || u.Node != "new" {
			t.Errorf("served as node %q says, want %q: %s", u.Node, "new", s.WhyNoPod("ns", "p", time.Now()))
		}
		if asked != 2 {
			t.Errorf("%d questions, want 2", asked)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A question that the API server did not answer is asked again until it does; a new one is not held up by it.
func TestOwnersAskUntilAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		answers := map[string]error{
			"p": apierrors.NewInternalError(errors.New("etcd is away")),
			"q": apierrors.NewNotFound(corev1.Resource("pods"), "q"),
		}
		asked := map[string]int{}
		var mu sync.Mutex
		client.PrependReactor("get", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			name := a.(k8stesting.GetAction).GetName()
			asked[name]++
			return true, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}, answers[name]
		})
		o := newOwners(client, store.New(store.Config{}))
		ctx, stop := context.WithCancel(t.Context())
		o.ask("ns", "p")
		o.ask("ns", "q")
		done := make(chan error)
		go func() { done <- o.run(ctx) }()
		check := func(after time.Duration, want map[string]int) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("questions: %s", diff)
			}
		}
		check(time.Second, map[string]int{"p": 1, "q": 1})
		check(10*time.Second, map[string]int{"p": 3, "q": 1})
		mu.Lock()
		answers["p"] = nil
		mu.Unlock()
		check(time.Minute, map[string]int{"p": 4, "q": 1})
		o.ask("ns", "p") // another conflict
		check(time.Minute, map[string]int{"p": 5, "q": 1})
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
