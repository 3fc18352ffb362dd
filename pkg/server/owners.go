package server

import (
	"context"
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
	// pending are the questions without an answer. A node can claim no more pods than the store takes
	// of one answer, so a node that lies can have no more questions asked.
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
	o.mu.Lock()
	o.pending[types.NamespacedName{Namespace: namespace, Name: pod}] = struct{}{}
	o.mu.Unlock()
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
		for _, pod := range o.questions() {
			if o.settle(ctx, pod) {
				o.mu.Lock()
				delete(o.pending, pod)
				o.mu.Unlock()
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(ownerPace):
			}
		}
	}
}

func (o *owners) questions() []types.NamespacedName {
	o.mu.Lock()
	defer o.mu.Unlock()
	pods := make([]types.NamespacedName, 0, len(o.pending))
	for pod := range o.pending {
		pods = append(pods, pod)
	}
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
		return false
	}
	if err == nil {
		log.V(2).Info("several nodes claim a pod: the one that the API server names is believed", "pod", pod, "node", p.Spec.NodeName)
		o.store.SetOwner(pod.Namespace, pod.Name, p.Spec.NodeName)
	}
	return true
}
