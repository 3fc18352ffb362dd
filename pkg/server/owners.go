package server

import (
	"context"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"metrics-server/pkg/sample"
	"metrics-server/pkg/store"
)

// owners asks the API server, until it answers, on which node a pod runs that several nodes claim.
// Meanwhile the store applies a rule of its own.
//
// A question waits in the queue of one of the two nodes it concerns: the one with more open
// questions. The queues take turns. A node with false claims to thousands of pods thus delays its
// own questions, not those of the nodes that run these pods, no matter who claimed them first.
type owners struct {
	client kubernetes.Interface
	store  *store.Store
	wake   chan struct{}

	mu     sync.Mutex        // guards the fields that follow, and the queues
	queues map[string]*queue // by node
	turns  []*queue          // those with questions; the first one is next
}

const (
	ownerTimeout = 5 * time.Second
	ownerPace    = 20 * time.Millisecond // between questions: bounds the load on the API server
	ownerRetry   = 5 * time.Second       // before a failed question is asked again

	// ownerBurst is how many questions one node may cause at that pace: as many as it can list
	// pods. One question is added back every ownerRefill, so that a flapping list does not cost 50
	// requests a second forever.
	ownerBurst  = sample.MaxContainers
	ownerRefill = 200 * time.Millisecond

	// maxQuestions is the length of a queue at which pointless questions are dropped.
	maxQuestions = 2 * sample.MaxContainers
)

// queue holds the waiting questions of a node, and counters about that node.
type queue struct {
	pending []question // to be asked, oldest first
	failed  []question // to be asked again at retry
	retry   time.Time
	pods    map[types.NamespacedName]struct{} // in pending or failed
	limit   int                               // tidy is called before len(pods) exceeds it
	open    int                               // number of questions about the node, in all queues
	budget  budget
}

// question asks on which node a pod runs.
type question struct {
	pod   types.NamespacedName
	queue *queue    // where it waits
	about [2]*queue // of the new claimant and of a previous one
}

// budget limits the questions of a queue to a burst of ownerBurst plus one every ownerRefill.
type budget struct {
	spent int
	since time.Time // the time to which spent refers
}

// next returns the time until a question may be asked, 0 if one may be asked now.
func (b *budget) next(now time.Time) time.Duration {
	if b.spent == 0 {
		b.since = now
		return 0
	}
	refilled := int(now.Sub(b.since) / ownerRefill)
	b.spent = max(b.spent-refilled, 0)
	b.since = b.since.Add(time.Duration(refilled) * ownerRefill)
	if b.spent < ownerBurst {
		return 0
	}
	return b.since.Add(ownerRefill).Sub(now)
}

func newOwners(client kubernetes.Interface, s *store.Store) *owners {
	return &owners{client: client, store: s, wake: make(chan struct{}, 1), queues: map[string]*queue{}}
}

// ask resolves a conflict that began because node claims a pod. It does not block.
func (o *owners) ask(node string, c store.PodClaim) {
	o.put(node, c)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *owners) put(node string, c store.PodClaim) {
	o.mu.Lock()
	defer o.mu.Unlock()
	q := question{
		pod:   types.NamespacedName{Namespace: c.Namespace, Name: c.Pod},
		about: [2]*queue{o.queueLocked(node), o.queueLocked(c.Rival)},
	}
	if q.queue = q.about[0]; q.about[1].open > q.queue.open {
		q.queue = q.about[1]
	}
	if _, ok := q.queue.pods[q.pod]; ok {
		return
	}
	if len(q.queue.pods) >= q.queue.limit {
		q.queue.tidy(o.store)
	}
	o.openLocked(q)
	q.queue.pending = append(q.queue.pending, q)
}

// queueLocked returns the queue of a node. o.mu is held.
func (o *owners) queueLocked(node string) *queue {
	q := o.queues[node]
	if q == nil {
		q = &queue{pods: map[types.NamespacedName]struct{}{}, limit: maxQuestions}
		o.queues[node] = q
	}
	return q
}

// openLocked registers a question that is about to be queued. o.mu is held.
func (o *owners) openLocked(q question) {
	if !slices.Contains(o.turns, q.queue) {
		o.turns = append(o.turns, q.queue)
	}
	q.queue.pods[q.pod] = struct{}{}
	for _, n := range q.about {
		n.open++
	}
}

// close unregisters a question that is no longer queued.
func (q *question) close() {
	delete(q.queue.pods, q.pod)
	for _, n := range q.about {
		n.open--
	}
}

// tidy drops pointless questions and lets the queue grow to twice the remainder. The store bounds
// the number of questions that have a point, so no question about a lasting conflict is lost.
func (q *queue) tidy(s *store.Store) {
	pointless := func(q question) bool {
		if s.Disputed(q.pod.Namespace, q.pod.Name) {
			return false
		}
		q.close()
		return true
	}
	q.pending = slices.DeleteFunc(q.pending, pointless)
	q.failed = slices.DeleteFunc(q.failed, pointless)
	q.limit = max(maxQuestions, 2*len(q.pods))
}

// run asks questions until ctx ends.
func (o *owners) run(ctx context.Context) error {
	for {
		q, wait := o.next(time.Now())
		var wake <-chan struct{}
		switch {
		case wait > 0:
			wake = o.wake
		case !o.store.Disputed(q.pod.Namespace, q.pod.Name):
			continue
		default:
			o.asked(q, o.settle(ctx, q.pod), time.Now())
			wait = ownerPace
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-time.After(wait):
		}
	}
}

// next removes and returns the question whose turn it is. If none may be asked now, it returns how
// long to wait.
func (o *owners) next(now time.Time) (_ question, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	wait = ownerRetry
	for i, of := range o.turns {
		if len(of.failed) > 0 && !now.Before(of.retry) {
			of.pending, of.failed = append(of.pending, of.failed...), nil
		}
		if len(of.pending) == 0 {
			wait = min(wait, of.retry.Sub(now))
			continue
		}
		if d := of.budget.next(now); d > 0 {
			wait = min(wait, d)
			continue
		}
		q := of.pending[0]
		of.pending = of.pending[1:]
		q.close() // a conflict that recurs meanwhile is a new question
		o.turns = slices.Delete(o.turns, i, i+1)
		if len(of.pods) > 0 {
			o.turns = append(o.turns, of)
		}
		return q, 0
	}
	for node, q := range o.queues { // idle: forget nodes without questions and with a full budget
		if q.budget.next(now); q.open == 0 && len(q.pods) == 0 && q.budget.spent == 0 {
			delete(o.queues, node)
		}
	}
	return question{}, wait
}

// asked records that a question was asked, and queues it again if there was no answer.
func (o *owners) asked(q question, answered bool, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := q.queue
	of.budget.spent++
	if _, ok := of.pods[q.pod]; ok || answered {
		return
	}
	o.openLocked(q)
	if len(of.failed) == 0 {
		of.retry = now.Add(ownerRetry)
	}
	of.failed = append(of.failed, q)
}

// settle asks once and reports whether there was an answer. That the pod does not exist is an
// answer.
func (o *owners) settle(ctx context.Context, pod types.NamespacedName) bool {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	log := klog.FromContext(ctx)
	p, err := o.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		log.V(2).Info("Several nodes claim a pod, and the API server did not say which one runs it: "+
			"until it does, the node with the newer container start is trusted",
			"pod", pod, "err", err)
		o.store.NoOwner(pod.Namespace, pod.Name)
		return false
	}
	if err != nil {
		o.store.NoOwner(pod.Namespace, pod.Name)
		return true
	}
	log.V(2).Info("Several nodes claim a pod: the node that the API server names is trusted",
		"pod", pod, "node", p.Spec.NodeName)
	o.store.SetOwner(pod.Namespace, pod.Name, p.Spec.NodeName)
	return true
}
