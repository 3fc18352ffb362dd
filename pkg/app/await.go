package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

const (
	// firstAttempt is how long the API server may take to answer before the probes are answered meanwhile.
	firstAttempt = 2 * time.Second
	// attemptTimeout is how long it may take from then on.
	attemptTimeout = 10 * time.Second
)

// awaitBackoff is how long to wait between attempts; it ends at 5 to 7.5 s.
var awaitBackoff = wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 5 * time.Second}

// awaitAPIServer returns nil once the API server has said how requests are authenticated, or when ctx ends. Without
// that the generic API server cannot be built. To end instead would be worse: the kubelet waits for up to five minutes
// before it starts a container again that does, long after an API server has come back. Until then the probes are answered, so
// that the kubelet lets the process live and sends it no traffic; everything else is refused.
func (o *Options) awaitAPIServer(ctx context.Context) error {
	if o.Authentication.SkipInClusterLookup || o.Authentication.TolerateInClusterLookupFailure || o.Authentication.RequestHeader.ClientCAFile != "" {
		return nil // the generic API server starts without
	}
	config, err := clientConfig(o.Authentication.RemoteKubeConfigFile)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client for the API server: %w", err)
	}
	ask := func(ctx context.Context, timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		_, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "extension-apiserver-authentication", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil // it answers: a cluster without aggregation
		}
		return err
	}
	start := time.Now()
	err = ask(ctx, firstAttempt)
	if err == nil || ctx.Err() != nil {
		return nil //nolint:nilerr // it answers, or nobody waits for it any more
	}
	w := &waiting{}
	w.failed(err)
	stop, err := o.serveMeanwhile(w)
	if err != nil {
		return err
	}
	delay := awaitBackoff.DelayFunc()
	for {
		select {
		case <-ctx.Done():
		case <-time.After(delay()):
			if err := ask(ctx, attemptTimeout); err != nil {
				w.failed(err)
				continue
			}
			klog.InfoS("the API server answers", "after", time.Since(start).Round(time.Millisecond))
		}
		stop()
		return nil
	}
}

// serveMeanwhile serves h where the generic API server will, until stop is called, which leaves the port free.
func (o *Options) serveMeanwhile(h http.Handler) (stop func(), err error) {
	var info *genericapiserver.SecureServingInfo
	if err := o.SecureServing.SecureServingOptions.ApplyTo(&info); err != nil {
		return nil, o.servingError(err)
	}
	o.SecureServing.Listener = nil // the next one listens anew
	end := make(chan struct{})
	done, closed, err := info.Serve(h, time.Second, end)
	if err != nil {
		_ = info.Listener.Close()
		return nil, o.servingError(err)
	}
	return func() {
		close(end)
		<-done
		<-closed
	}, nil
}

// waiting answers probes while the API server is waited for, and refuses everything else. It tells the log what is
// amiss, once and when that changes.
type waiting struct{ cause atomic.Pointer[string] }

func (w *waiting) failed(err error) {
	cause := causeOf(err)
	if before := w.cause.Swap(&cause); before != nil && *before == cause {
		klog.V(2).InfoS("the API server still does not answer", "err", err)
		return
	}
	remedy := "check that the API server runs and that it can be reached from here"
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		remedy = "check the service account or the kubeconfig's credentials, and that the RoleBinding metrics-server-auth-reader in kube-system is there"
	}
	klog.ErrorS(err, "the API server does not say how requests are authenticated; only probes are answered, and trying goes on", "cause", cause, "remedy", remedy)
}

// ServeHTTP implements http.Handler.
func (w *waiting) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/livez" || r.URL.Path == "/healthz" {
		_, _ = io.WriteString(rw, "ok")
		return
	}
	http.Error(rw, "not ready: the API server has not said yet how requests are authenticated: "+*w.cause.Load(), http.StatusServiceUnavailable)
}

// causeOf says what err is in words that stay the same from one attempt to the next, and name no address.
func causeOf(err error) string {
	var (
		lookup *net.DNSError
		op     *net.OpError
	)
	switch reason := apierrors.ReasonForError(err); {
	case reason != metav1.StatusReasonUnknown:
		return string(reason)
	case errors.As(err, &lookup):
		return "its name cannot be looked up"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}
