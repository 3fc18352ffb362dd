package server

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
)

const (
	ownAccessTimeout = 2 * time.Second
	ownAccessFor     = 10 * time.Second // how long a result is reused: all kubelets may reject a token at once
)

// ownAccess determines whether the API server accepts this server's credentials.
type ownAccess struct {
	ask func(context.Context) error

	mu    sync.Mutex
	asked time.Time
	err   error
}

func newOwnAccess(client kubernetes.Interface) *ownAccess {
	return &ownAccess{ask: func(ctx context.Context) error {
		// Anybody may read the version, except with an invalid token.
		return client.Discovery().RESTClient().Get().AbsPath("/version").MaxRetries(0).Do(ctx).Error()
	}}
}

// check returns the error of a request to the API server that is at most ownAccessFor old.
func (a *ownAccess) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asked.IsZero() || time.Since(a.asked) >= ownAccessFor {
		ctx, cancel := context.WithTimeout(context.Background(), ownAccessTimeout)
		defer cancel()
		a.err, a.asked = a.ask(ctx), time.Now()
	}
	return a.err
}
