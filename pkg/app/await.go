package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
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

// Where the API server says how requests are authenticated, and what of it the generic API server does not start without.
const (
	authenticationConfig = "extension-apiserver-authentication"
	frontProxyKey        = "requestheader-client-ca-file"
)

var errNoFrontProxy = errors.New("ConfigMap " + metav1.NamespaceSystem + "/" + authenticationConfig + " has no " + frontProxyKey)

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
		m, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, authenticationConfig, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && m.Data[frontProxyKey] == "" {
			return errNoFrontProxy
		}
		return err
	}
	start := time.Now()
	err = ask(ctx, firstAttempt)
	if err == nil || ctx.Err() != nil {
		return nil //nolint:nilerr // it answers, or nobody waits for it any more
	}
	w := &waiting{proxy: proxyTo(config)}
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
	port := o.SecureServing.BindPort
	if err := o.SecureServing.SecureServingOptions.ApplyTo(&info); err != nil {
		return nil, o.servingError(port, err)
	}
	o.SecureServing.Listener = nil // the next one listens anew
	end := make(chan struct{})
	done, closed, err := info.Serve(h, time.Second, end)
	if err != nil {
		_ = info.Listener.Close()
		return nil, o.servingError(port, err)
	}
	return func() {
		close(end)
		<-done
		<-closed
	}, nil
}

// waiting answers probes while the API server is waited for, and refuses everything else. It tells the log what is
// amiss, once and when that changes.
type waiting struct {
	proxy string // by which the API server is asked; "": by none
	cause atomic.Pointer[string]
}

func (w *waiting) failed(err error) {
	cause := causeOf(err)
	if before := w.cause.Swap(&cause); before != nil && *before == cause {
		klog.V(2).InfoS("the API server still does not answer", "err", err)
		return
	}
	klog.ErrorS(err, "the API server does not say how requests are authenticated; only probes are answered, and trying goes on", "cause", cause, "remedy", remedyFor(err, w.proxy))
}

// remedyFor says what can be done about an API server that gives err when it is asked by way of a proxy, or of none.
func remedyFor(err error, proxy string) string {
	switch {
	case errors.Is(err, errNoFrontProxy):
		return "start every API server with the flags of the aggregation layer, as kubeadm does: --requestheader-client-ca-file, --proxy-client-cert-file, --proxy-client-key-file and the --requestheader-*-headers flags"
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return "check the service account or the kubeconfig's credentials, and that the RoleBinding metrics-server-auth-reader in kube-system is there"
	case proxy != "":
		return remedyProxy(proxy)
	}
	return "check that the API server runs and that it can be reached from here"
}

func remedyProxy(proxy string) string {
	return "the API server is asked through the proxy " + proxy + " because HTTPS_PROXY is set in the environment (or proxy-url in the kubeconfig): add the address of the API server to NO_PROXY, and those of the nodes, one by one or as ranges such as 10.0.0.0/8, or remove HTTPS_PROXY"
}

// proxyTo is the proxy by way of which the API server of c is asked, "" if it is asked directly.
func proxyTo(c *rest.Config) string {
	find := http.ProxyFromEnvironment
	if c.Proxy != nil {
		find = c.Proxy
	}
	to, _, err := rest.DefaultServerUrlFor(c)
	if err != nil {
		return ""
	}
	via, err := find(&http.Request{URL: to})
	if err != nil || via == nil {
		return ""
	}
	return via.Host
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
		get    *url.Error
	)
	switch reason := apierrors.ReasonForError(err); {
	case reason != metav1.StatusReasonUnknown:
		return string(reason)
	case errors.As(err, &lookup):
		return "its name cannot be looked up"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &op):
		cause := op.Err.Error()
		if dial, ok := errors.AsType[*net.OpError](op.Err); ok { // of a proxy
			cause = op.Op + ": " + dial.Err.Error()
		}
		return cause
	case errors.As(err, &get):
		return get.Err.Error()
	}
	return err.Error()
}
