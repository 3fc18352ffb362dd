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

	"metrics-server/pkg/kubeapi"
)

const (
	// firstAttempt is how long the API server may take to answer before this server starts to answer probes.
	firstAttempt = 2 * time.Second
	// attemptTimeout is the timeout of all later attempts.
	attemptTimeout = 10 * time.Second
)

// awaitBackoff is how long to wait between attempts; it ends at 5 to 7.5 s.
var awaitBackoff = wait.Backoff{
	Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 8, Cap: 5 * time.Second,
}

var errNoFrontProxy = errors.New(
	"ConfigMap " + metav1.NamespaceSystem + "/" + kubeapi.AuthenticationConfigMap + " has no " + kubeapi.FrontProxyCAKey)

// awaitAPIServer waits until the API server has served the authentication configuration, and returns it. It returns
// nil if the generic API server does not require the configuration. If ctx has ended, the result has no meaning. It
// does not give up: the kubelet waits for up to five minutes before it restarts a container that exits, long after the
// API server has come back. Meanwhile /livez succeeds, so that the container is not killed, and all other requests are
// rejected. With --authentication-tolerate-lookup-failure it asks only once, and a failure is part of the returned
// lookup.
func (o *serving) awaitAPIServer(ctx context.Context) (*lookup, error) {
	if o.Authentication.SkipInClusterLookup || o.Authentication.RequestHeader.ClientCAFile != "" {
		return nil, nil
	}
	config, err := clientConfig(o.Authentication.RemoteKubeConfigFile)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	ask := func(timeout time.Duration) *lookup {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		m, err := client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, kubeapi.AuthenticationConfigMap,
			metav1.GetOptions{})
		return &lookup{m, err}
	}
	if o.Authentication.TolerateInClusterLookupFailure {
		return ask(attemptTimeout), nil
	}
	start := time.Now()
	l := ask(firstAttempt)
	err = l.incomplete()
	if err == nil || ctx.Err() != nil {
		return l, nil // it answers, or nobody waits for it any more
	}
	w := &waiting{server: o.name, proxy: proxyTo(config)}
	w.failed(err)
	stop, err := o.serveMeanwhile(w)
	if err != nil {
		return nil, err
	}
	defer stop()
	delay := awaitBackoff.DelayFunc()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(delay()):
		}
		l := ask(attemptTimeout)
		if err := l.incomplete(); err != nil {
			w.failed(err)
			continue
		}
		klog.InfoS("The API server answers", "after", time.Since(start).Round(time.Millisecond))
		return l, nil
	}
}

// serveMeanwhile serves h on the address of the generic API server until stop is called, which frees the port.
func (o *serving) serveMeanwhile(h http.Handler) (stop func(), err error) {
	var info *genericapiserver.SecureServingInfo
	port := o.SecureServing.BindPort
	if err := o.SecureServing.SecureServingOptions.ApplyTo(&info); err != nil {
		return nil, o.servingError(port, err)
	}
	o.SecureServing.Listener = nil // the generic API server opens its own
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

// waiting answers probes until the API server has answered, and rejects all other requests. It logs the
// cause, once and when it changes.
type waiting struct {
	server string // the name of this server's Deployment
	proxy  string // between this server and the API server; "": none
	cause  atomic.Pointer[string]
}

func (w *waiting) failed(err error) {
	cause := causeOf(err)
	if before := w.cause.Swap(&cause); before != nil && *before == cause {
		klog.V(2).InfoS("The API server still does not answer", "err", err)
		return
	}
	klog.ErrorS(err, "The authentication configuration cannot be read from the API server: "+
		"until it can, only probes are answered", "cause", cause, "remedy", remedyFor(err, w.server, w.proxy))
}

// remedyFor returns the remedy for err, the error of a request to the API server. server is the
// name of this server's Deployment, and proxy the proxy in front of the API server, if any.
func remedyFor(err error, server, proxy string) string {
	cause := kubeapi.CauseOf(err)
	switch {
	case errors.Is(err, errNoFrontProxy):
		return kubeapi.RemedyFrontProxy
	case cause == kubeapi.Forbidden:
		return "apply " + bindings(server) + ", as in deploy/; it must name this server's service account"
	case cause != kubeapi.Unauthorized && proxy != "":
		return remedyProxy(proxy)
	}
	return cause.Remedy()
}

// bindings names the objects that allow the service account of a server to read the authentication configuration.
func bindings(server string) string {
	s := "the ClusterRoleBinding system:" + server
	if server == metricsServer {
		s += " (or the RoleBinding metrics-server-auth-reader in kube-system)"
	}
	return s
}

func remedyProxy(proxy string) string {
	return "requests to the API server go through the proxy " + proxy + " because HTTPS_PROXY is set in the environment " +
		"(or proxy-url in the kubeconfig): " + kubeapi.RemedyProxy
}

// proxyTo returns the proxy for requests to the API server of c, or "".
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
	http.Error(rw, "not ready: the authentication configuration cannot be read from the API server: "+*w.cause.Load(),
		http.StatusServiceUnavailable)
}

// causeOf describes err in words that do not change between attempts and contain no address.
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
