package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"metrics-server/pkg/store"
)

// owners asks the API server on which node a pod runs that several nodes claim, until it has said.
// Until then the store has a rule of its own.
type owners struct {
	client kubernetes.Interface
	store  *store.Store
	wake   chan struct{}

	mu sync.Mutex
	// pending are the questions without an answer. There are at most as many as pods that several nodes
	// listed, as an answer ends one also when the conflict has ended before.
	pending map[types.NamespacedName]struct{}
}

const (
	ownerTimeout = 5 * time.Second
	ownerPace    = 20 * time.Millisecond // between two questions, so that a node that lies about many pods is no load
	ownerRetry   = 5 * time.Second       // before the questions that failed are asked again
)

func newOwners(client kubernetes.Interface, s *store.Store) *owners {
	return &owners{client: client, store: s, wake: make(chan struct{}, 1), pending: map[types.NamespacedName]struct{}{}}
}

// ask has one conflict settled later. It never blocks.
func (o *owners) ask(namespace, pod string) {
	o.put(types.NamespacedName{Namespace: namespace, Name: pod})
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// run asks until ctx ends.
func (o *owners) run(ctx context.Context) error {
	retry := time.NewTicker(ownerRetry)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-retry.C:
		}
		for _, pod := range o.take() {
			if ctx.Err() == nil && !o.settle(ctx, pod) {
				o.put(pod)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(ownerPace):
			}
		}
	}
}

func (o *owners) put(pod types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending[pod] = struct{}{}
}

// take empties pending before the questions are asked: one that comes up again meanwhile is a new one.
func (o *owners) take() []types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	pods := slices.Collect(maps.Keys(o.pending))
	clear(o.pending)
	return pods
}

// settle asks once. It reports whether there was an answer, which is also that there is no such pod.
func (o *owners) settle(ctx context.Context, pod types.NamespacedName) bool {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	log := klog.FromContext(ctx)
	p, err := o.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		log.V(2).Info("several nodes claim a pod, and the API server does not say whose it is: the newer container start wins until it does",
			"pod", pod, "err", err)
		o.store.NoOwner(pod.Namespace, pod.Name)
		return false
	}
	if err != nil {
		o.store.NoOwner(pod.Namespace, pod.Name)
		return true
	}
	log.V(2).Info("several nodes claim a pod: the one that the API server names is believed", "pod", pod, "node", p.Spec.NodeName)
	o.store.SetOwner(pod.Namespace, pod.Name, p.Spec.NodeName)
	return true
}
