package server

import (
	"context"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
)

const (
	rejectedTimeout = 2 * time.Second
	rejectedFor     = 10 * time.Second // how long a result is reused: all kubelets may reject a token at once
)

// rejected determines whether the API server rejects this server's credentials.
type rejected struct {
	ask func(context.Context) error

	mu    sync.Mutex
	asked time.Time
	is    bool
}

func newRejected(client kubernetes.Interface) *rejected {
	return &rejected{ask: func(ctx context.Context) error {
		// Anybody may read the version, except with an invalid token.
		return client.Discovery().RESTClient().Get().AbsPath("/version").MaxRetries(0).Do(ctx).Error()
	}}
}

func (r *rejected) check() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked.IsZero() || time.Since(r.asked) >= rejectedFor {
		ctx, cancel := context.WithTimeout(context.Background(), rejectedTimeout)
		defer cancel()
		r.is, r.asked = apierrors.IsUnauthorized(r.ask(ctx)), time.Now()
	}
	return r.is
}
