package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
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

// The server asks once for each conflict, and trusts the answer.
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
	return &sample.Batch{Containers: []sample.Container{{
		ID: new(sample.NewContainerID("ns", "p", "c")),
		Sample: sample.Sample{
			Time: sample.TimeOf(now), Start: sample.TimeOf(start), CPU: cpu, Memory: 1,
			Given: sample.CPU | sample.Memory | sample.Start,
		},
	}}}
}

// The pod may be recreated on another node while an answer is in flight: the API server is asked again.
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
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if asked != 2 {
			t.Errorf("%d questions, want 2", asked)
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
		s := store.New(store.Config{})
		o := newOwners(client, s)
		k := newSink(s, o, prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		claim := func(node string, pods ...string) {
			b := &sample.Batch{}
			for _, p := range pods {
				b.Containers = append(b.Containers, sample.Container{ID: new(sample.NewContainerID("ns", p, "c"))})
			}
			k.Record(node, b, time.Now())
		}
		claim("a", "p", "q")
		claim("b", "p", "q")
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
		claim("c", "p") // another conflict
		check(time.Minute, map[string]int{"p": 5, "q": 1})
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// ownersTest has a sink whose conflicts are settled by an API server that answers after 5 ms. It
// knows of every pod that it runs on node honest, except for ns/p, which runs on node new.
type ownersTest struct {
	*testing.T
	store  *store.Store
	owners *owners
	sink   *sink
	start  time.Time
	down   atomic.Bool
	mu     sync.Mutex
	asked  map[string]int // by pod
}

func (o *ownersTest) questions() (all int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.asked {
		all += n
	}
	return all
}

// about returns how many questions there were about a pod.
func (o *ownersTest) about(pod string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[pod]
}

// kept returns the numbers of queues and of turns that owners keeps.
func (o *ownersTest) kept() (queues, turns int) {
	o.owners.mu.Lock()
	defer o.owners.mu.Unlock()
	return len(o.owners.queues), len(o.owners.turns)
}

// list makes a node report that it runs these pods.
func (o *ownersTest) list(node, namespace string, pods ...string) {
	b := &sample.Batch{Node: sample.Sample{Given: sample.CPU | sample.Memory}}
	now := time.Now()
	for _, p := range pods {
		b.Containers = append(b.Containers, sample.Container{
			ID: new(sample.NewContainerID(namespace, p, "c")),
			Sample: sample.Sample{
				Time: sample.TimeOf(now), Start: sample.TimeOf(o.start), CPU: uint64(now.Sub(o.start)), Memory: 1,
				Given: sample.CPU | sample.Memory | sample.Start,
			},
		})
	}
	o.sink.Record(node, b, now)
}

func withOwners(t *testing.T, test func(*ownersTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := &ownersTest{T: t, store: store.New(store.Config{}), start: time.Now().Add(-time.Hour), asked: map[string]int{}}
		client := fake.NewClientset()
		client.PrependReactor("get", "pods", func(a k8stesting.Action) (bool, runtime.Object, error) {
			time.Sleep(5 * time.Millisecond)
			name := a.(k8stesting.GetAction).GetName()
			o.mu.Lock()
			defer o.mu.Unlock()
			o.asked[name]++
			switch {
			case o.down.Load():
				return true, nil, apierrors.NewInternalError(errors.New("etcd is away"))
			case name == "p":
				return true, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "new"}}, nil
			}
			return true, &corev1.Pod{Spec: corev1.PodSpec{NodeName: "honest"}}, nil
		})
		o.owners = newOwners(client, o.store)
		o.sink = newSink(o.store, o.owners, prometheus.NewRegistry())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.owners.run(ctx) }()
		test(o)
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// podNames returns the names of n pods.
func podNames(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return names
}

// Nodes that claim any number of pods of others, now and then or all the time, do not delay the
// conflicts of other nodes.
func TestOwnersTakeTurns(t *testing.T) {
	for name, tc := range map[string]struct {
		liars int
		flap  bool
		want  time.Duration
	}{
		"a list that flaps": {liars: 1, flap: true, want: 100 * time.Millisecond},
		"a list that stays": {liars: 1, want: 100 * time.Millisecond},
		"ten lists":         {liars: 10, flap: true, want: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			withOwners(t, func(o *ownersTest) {
				many := podNames("v", sample.MaxContainers)
				begun := time.Now()
				for i := range 6 {
					o.list("honest", "victims", many...)
					for l := range tc.liars {
						if tc.flap && (i+l)%2 == 1 {
							o.list(fmt.Sprint("liar", l), "victims")
						} else {
							o.list(fmt.Sprint("liar", l), "victims", many...)
						}
					}
					o.list("old", "ns", "p")
					time.Sleep(12 * time.Second)
				}
				o.list("old", "ns", "p")
				o.list("new", "ns", "p")
				time.Sleep(tc.want)
				var u sample.PodUsage
				if o.store.Pod("ns", "p", time.Now(), &u); u.Node != "" && u.Node != "new" {
					t.Errorf("%v later the pod is served as node %q says", tc.want, u.Node)
				}
				if n := o.about("p"); n != 1 {
					t.Errorf("%v later %d questions about the pod, want 1", tc.want, n)
				}
				if most := int(time.Since(begun)/ownerPace) + 1; o.questions() > most {
					t.Errorf("%d questions in %v, want at most %d", o.questions(), time.Since(begun), most)
				}
				for _, v := range []int{0, sample.MaxContainers - 1} {
					if o.store.Pod("victims", many[v], time.Now(), &u); u.Node != "honest" {
						t.Errorf("%s is served as node %q says", many[v], u.Node)
					}
				}
			})
		})
	}
}

// A node whose list flaps forever does not cause 50 requests a second forever, but only as many as
// its budget is refilled with. When it is gone, nothing about it is kept.
func TestFlappingListHasABudget(t *testing.T) {
	withOwners(t, func(o *ownersTest) {
		many := podNames("v", sample.MaxContainers)
		round := func(i int) {
			o.list("honest", "victims", many...)
			if i%2 == 0 {
				o.list("liar", "victims", many...)
			} else {
				o.list("liar", "victims")
			}
			time.Sleep(12 * time.Second)
		}
		for i := range 60 { // 12 minutes, in which the liar spends its burst
			round(i)
		}
		before, since := o.questions(), time.Now()
		for i := range 20 {
			round(i)
		}
		if n, most := o.questions()-before, int(time.Since(since)/ownerRefill)+1; n > most {
			t.Errorf("%d questions in the last %v, want at most %d", n, time.Since(since), most)
		}
		// Once the liar is gone nothing is left, and nothing is remembered when its budget is full again.
		o.store.RemoveNode("liar")
		time.Sleep(ownerBurst*ownerRefill + time.Minute)
		before = o.questions()
		time.Sleep(time.Minute)
		queues, turns := o.kept()
		if n := o.questions() - before; n != 0 || queues != 0 || turns != 0 {
			t.Errorf("%d questions about pods that only their node lists, %d queues, %d turns", n, queues, turns)
		}
	})
}

// Conflicts about ever new pods that come and go do not fill the memory, and do not push out a conflict that lasts.
func TestOwnersQueueIsBounded(t *testing.T) {
	withOwners(t, func(o *ownersTest) {
		o.down.Store(true)
		o.list("old", "ns", "p")
		for i := range 20 {
			many := podNames(fmt.Sprintf("v%d-", i), sample.MaxContainers-1)
			o.list("accomplice", "ns", many...)
			o.list("liar", "ns", append(many, "p")...)
			o.list("old", "ns", "p")
			o.owners.mu.Lock()
			for node, q := range o.owners.queues {
				if n := len(q.pending) + len(q.failed); n > maxQuestions || len(q.pods) != n {
					t.Errorf("%d questions of node %s are kept, %d known: want at most %d", n, node, len(q.pods), maxQuestions)
				}
			}
			o.owners.mu.Unlock()
			time.Sleep(12 * time.Second)
		}
		o.down.Store(false)
		o.mu.Lock()
		clear(o.asked)
		o.mu.Unlock()
		time.Sleep(ownerBurst * ownerRefill)
		if n := o.about("p"); n != 1 {
			t.Errorf("%d questions about the pod whose conflict lasts, want 1", n)
		}
	})
}

// A conflict that ends before the API server is asked needs no answer. A conflict about a pod that
// left the node that the API server had named does.
func TestOwnersAskOnlyWhatMatters(t *testing.T) {
	withOwners(t, func(o *ownersTest) {
		many := podNames("v", 1000)
		o.list("honest", "victims", many...)
		o.list("liar", "victims", many...)
		time.Sleep(time.Second)
		o.list("liar", "victims")
		time.Sleep(ownerPace) // one is under way
		n := o.questions()
		time.Sleep(30 * time.Second)
		if o.questions() != n || n == 0 || n > 60 {
			t.Errorf("%d questions while two nodes listed the pods, and %d afterwards", n, o.questions()-n)
		}
		o.list("honest", "victims", many...)
		o.list("new", "victims", many[0]) // it had been asked about
		o.list("honest", "victims")
		before := o.about(many[0])
		time.Sleep(time.Second)
		if got := o.about(many[0]) - before; got != 1 {
			t.Errorf("%d questions about a pod that moved, want 1", got)
		}
	})
}

// After a restart, chance decides which node claims a pod first. A node that claims thousands of
// pods of others does not delay the conflicts of the nodes that run these pods, even if it was the
// first.
func TestOwnersAfterARestart(t *testing.T) {
	const nodes, each = 80, 100
	withOwners(t, func(o *ownersTest) {
		many := podNames("v", nodes*each)
		of := func(node int) []string { return slices.Clip(many[node*each : (node+1)*each]) }
		o.list("liar", "victims", many...)
		for i := range nodes {
			o.list(fmt.Sprint("node", i), "victims", of(i)...)
			time.Sleep(time.Millisecond)
		}
		// A victim disputes one pod with another victim, and another pod with a node that is no victim.
		o.list("node7", "victims", append(of(7), "p", "q")...)
		o.list("node8", "victims", append(of(8), "p")...)
		o.list("new", "victims", "q")
		time.Sleep(200 * time.Millisecond)
		for _, pod := range []string{"p", "q"} {
			if n := o.about(pod); n != 1 {
				t.Errorf("%d questions about pod %s, want 1", n, pod)
			}
		}
		time.Sleep(5 * time.Minute)
		if n := o.questions(); n != nodes*each+2 {
			t.Errorf("%d questions, want %d", n, nodes*each+2)
		}
		time.Sleep(ownerBurst*ownerRefill + time.Minute)
		if queues, turns := o.kept(); queues+turns > 0 {
			t.Errorf("%d queues and %d turns are kept, though no question is open", queues, turns)
		}
	})
}
