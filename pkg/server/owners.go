package server

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"metrics-server/pkg/store"
)

// owners asks the API server on which node a pod runs that several nodes claim.
type owners struct {
	client kubernetes.Interface
	store  *store.Store
	queue  chan types.NamespacedName
}

const (
	// ownersQueue bounds the questions that wait. A node that claims more pods of others than that
	// has the rest judged by the store's own rule.
	ownersQueue  = 4096
	ownerTimeout = 10 * time.Second
)

func newOwners(client kubernetes.Interface, s *store.Store) *owners {
	return &owners{client: client, store: s, queue: make(chan types.NamespacedName, ownersQueue)}
}

// ask has one conflict settled later. It never blocks.
func (o *owners) ask(namespace, pod string) {
	select {
	case o.queue <- types.NamespacedName{Namespace: namespace, Name: pod}:
	default:
	}
}

func (o *owners) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case pod := <-o.queue:
			o.settle(ctx, pod)
		}
	}
}

func (o *owners) settle(ctx context.Context, pod types.NamespacedName) {
	ctx, cancel := context.WithTimeout(ctx, ownerTimeout)
	defer cancel()
	p, err := o.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		klog.FromContext(ctx).V(2).Info("several nodes claim a pod, and the API server did not say whose it is: the newer container start wins",
			"pod", pod, "err", err)
		return
	}
	klog.FromContext(ctx).V(2).Info("several nodes claim a pod: the node of the API server's answer is believed", "pod", pod, "node", p.Spec.NodeName)
	o.store.SetOwner(pod.Namespace, pod.Name, p.Spec.NodeName)
}
