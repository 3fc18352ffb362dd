// Package apiserver serves any set of API groups as an aggregated API server: TLS with its own
// certificate authority, authentication, authorization, audit, limits, probes, /metrics and an
// orderly end. It knows nothing about what the groups serve.
package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/component-base/metrics/prometheus/slis"

	"metrics-server/pkg/api"
	"metrics-server/pkg/servingcert"
)

// shutdownDelay is how long requests are still accepted after /readyz begins to fail, unless the configuration says
// otherwise, so that endpoints and the aggregator stop sending them in time.
const shutdownDelay = 5 * time.Second

// NewGenericConfig returns the configuration of the generic API server for at least one group.
// Serving, authentication, authorization and audit are left to the caller.
func NewGenericConfig(title, version string, groups ...*api.Group) *genericapiserver.Config {
	c := genericapiserver.NewConfig(groups[0].Codecs) // for errors and discovery, which all groups share
	api.Configure(c, title, version, groups...)
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	c.ShutdownDelayDuration = shutdownDelay
	// Probes are declared long-running, because the limit of requests in flight ignores such
	// requests: a probe must be answered at once even at the limit, or the kubelet restarts a
	// server that is merely busy.
	longRunning := c.LongRunningFunc
	c.LongRunningFunc = func(r *http.Request, info *request.RequestInfo) bool {
		return longRunning(r, info) || isProbe(info)
	}
	c.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return handlerChain(api.Handler(next, groups...), c, groups...)
	}
	c.EnableMetrics = false // installMetrics serves them, together with our own
	return c
}

// isProbe reports whether a request is a probe of a kubelet or load balancer. Paths below these are
// not: there is no bound on their number, and each costs an authorization request to the API
// server.
func isProbe(info *request.RequestInfo) bool {
	return info.Path == "/livez" || info.Path == "/readyz" || info.Path == "/healthz"
}

// Config configures a Server.
type Config struct {
	Name     string                   // of the server
	Generic  *genericapiserver.Config // from NewGenericConfig, with serving and access set
	Registry *prometheus.Registry     // the server's own metrics; those of this package are added

	// Client is for the Secret and the APIServices.
	Client kubernetes.Interface
	// APIServices are the registrations of the groups with the aggregator.
	APIServices []string
	// Secret contains the serving certificate, which this server maintains. Without a name, only the
	// certificate in Generic is used.
	Secret types.NamespacedName
	// Service is the only Service of this server. If it is empty, every Service in the namespace of
	// the Secret is one.
	Service string
	// SecretOptional means that the Secret was not configured explicitly: it is used if it exists.
	SecretOptional bool
}

// Server is a generic API server. Create it with New, then install the groups and add checks.
type Server struct {
	*genericapiserver.GenericAPIServer
	certificate *servingcert.Keeper // nil if not maintained here
	watches     *watches
}

// New returns a Server that serves probes and /metrics, but no group yet. It opens no connections.
func New(c Config) (*Server, error) {
	s := &Server{}
	var limited *connections
	if serving := c.Generic.SecureServing; serving != nil {
		if c.Secret.Name != "" {
			s.certificate = servingcert.New(servingcert.Config{
				Client:      c.Client,
				Namespace:   c.Secret.Namespace,
				Secret:      c.Secret.Name,
				Service:     c.Service,
				Optional:    c.SecretOptional,
				APIServices: c.APIServices,
				Fallback:    serving.Cert,
				Registerer:  c.Registry,
			})
			serving.Cert = s.certificate
		}
		limited = newConnections(serving.Listener, maxConnections)
		serving.Listener = limited
	}
	s.watches = newWatches(maxWatches, limited)
	chain := c.Generic.BuildHandlerChainFunc
	c.Generic.BuildHandlerChainFunc = func(next http.Handler, g *genericapiserver.Config) http.Handler {
		return chain(s.watches.serve(next), g)
	}
	var err error
	s.GenericAPIServer, err = c.Generic.Complete(nil).New(c.Name, genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("make the API server: %w", err)
	}
	installMetrics(s.Handler.NonGoRestfulMux, c.Registry)
	return s, nil
}

// Run serves, and runs parts, until ctx ends or a part fails. Then /readyz fails at once, requests
// are still answered for ShutdownDelayDuration, then watches end, and the context of parts ends only after the last
// request. It leaves no goroutine behind.
func (s *Server) Run(ctx context.Context, parts ...func(context.Context) error) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	if s.certificate != nil {
		parts = append(parts, s.certificate.Run)
	}
	for _, run := range parts {
		group.Go(func() error { return run(work) })
	}
	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(work, cancel) // the failure of any part stops the server
	context.AfterFunc(serve, func() { time.AfterFunc(s.ShutdownDelayDuration, s.watches.end) })
	err := s.PrepareRun().RunWithContext(serve)
	stop()
	return errors.Join(err, group.Wait())
}

// installMetrics serves the metrics of the libraries and of own at /metrics.
func installMetrics(m *mux.PathRecorderMux, own prometheus.Gatherer) {
	// The generic API server registers its metrics only as a side effect of installing its handler,
	// which would not include our own metrics.
	routes.DefaultMetrics{}.Install(mux.NewPathRecorderMux("unused"))
	m.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{legacyregistry.DefaultGatherer, own},
		promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	slis.SLIMetrics{}.Install(m)
}

// ClientConfig returns a copy of c for reading large lists: as protobuf and without client-side
// rate limits. The API server's priority and fairness is the limit.
func ClientConfig(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.QPS = -1
	c.UserAgent = cmp.Or(c.UserAgent, rest.DefaultKubernetesUserAgent()) // identifies us in the API server's audit log
	return c
}
