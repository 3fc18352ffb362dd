// Package server is the composition root: it wires the inventory, the scraper, the store and the
// API into one generic API server with its probes and metrics. Nothing else may know all of them.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/api"
	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/scrape"
	"metrics-server/pkg/servingcert"
	"metrics-server/pkg/store"
)

// KubeletConfig says how kubelets are reached.
type KubeletConfig = kubelet.Config

// Config is what a Server is made of.
type Config struct {
	Generic      *genericapiserver.Config // from NewGenericConfig, with serving and access set
	Rest         *rest.Config             // for the API server
	Kubelet      KubeletConfig
	NodeSelector string        // label selector; empty: all nodes
	Resolution   time.Duration // the window aimed at; a node is scraped every ScrapePeriod of it
	Timeout      time.Duration // of one scrape
	NodeEvents   bool          // record Events on nodes whose scraping fails
	// OnFirstScrapes, unless nil, is called once, when every node was asked or podsPatience after the start: now the pods are listed.
	OnFirstScrapes func()
	// ServingSecret has the serving certificate, and is kept by this server. Without a name, Generic's certificate is all there is.
	ServingSecret types.NamespacedName
}

// apiServices are the registrations of metrics.k8s.io, which have the aggregator ask this server.
var apiServices = []string{"v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"}

// shutdownDelay is how long requests are still taken after /readyz began to fail, so that
// endpoints and the aggregator have stopped sending them by the end.
const shutdownDelay = 5 * time.Second

// NewGenericConfig returns the configuration of the generic API server as this server of that version wants it;
// serving, authentication, authorization and audit are the caller's to set.
func NewGenericConfig(version string) *genericapiserver.Config {
	c := genericapiserver.NewConfig(api.Codecs)
	api.Configure(c)
	c.OpenAPIConfig.Info.Version, c.OpenAPIV3Config.Info.Version = version, version
	c.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	c.ShutdownDelayDuration = shutdownDelay
	// The limit of requests in flight passes over long-running ones. A probe is not one, but it must be
	// answered at once when the limit is reached, or the kubelet ends a server that is merely busy.
	longRunning := c.LongRunningFunc
	c.LongRunningFunc = func(r *http.Request, info *request.RequestInfo) bool {
		return longRunning(r, info) || isProbe(info)
	}
	c.BuildHandlerChainFunc = handlerChain
	c.EnableMetrics = false // installMetrics serves them, together with our own
	return c
}

// Server scrapes kubelets and serves metrics.k8s.io. Make it with New.
type Server struct {
	generic   *genericapiserver.GenericAPIServer
	inventory *inventory.Inventory
	scraper   *scrape.Scraper
	kubelets  *kubelet.Clients
	store     *store.Store
	nodes     *nodes
	owners    *owners
	events    *events // nil: not wanted
	readiness *readiness

	certificate *servingcert.Keeper  // nil: it is not kept here
	metrics     *prometheus.Registry // our own
}

// New wires a Server. It opens no connection.
func New(c Config) (*Server, error) {
	config := clientConfig(c.Rest)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	client, err := kubernetes.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	objects, err := inventory.NewClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for the nodes and pods of the API server: %w", err)
	}
	kubelets, err := kubelet.New(c.Kubelet)
	if err != nil {
		return nil, err
	}

	registry := prometheus.NewRegistry()
	s := &Server{kubelets: kubelets, store: store.New(store.Config{Resolution: c.Resolution}), metrics: registry}
	s.owners = newOwners(client, s.store)
	to := newSink(s.store, s.owners, registry)
	scraping := scrape.Config{
		Period:     ScrapePeriod(c.Resolution),
		Timeout:    c.Timeout,
		Sink:       to,
		Registerer: registry,
	}
	if c.NodeEvents {
		if s.events, err = newEvents(config); err != nil {
			return nil, err
		}
		scraping.OnFailing, scraping.OnRecovered = s.events.failing, s.events.recovered
	}
	s.scraper = scrape.New(scraping)
	s.nodes = newNodes(kubelets, s.scraper, to)
	s.inventory = inventory.New(inventory.Config{
		Client:       objects,
		NodeSelector: c.NodeSelector,
		OnNode:       s.nodes.set,
		OnNodeGone:   s.nodes.remove,
		OnPodGone:    s.store.RemovePod,
		BeforePods: func(ctx context.Context) {
			firstScrapes(ctx, s.inventory.NodesSynced, s.scraper.Status)
			if c.OnFirstScrapes != nil {
				c.OnFirstScrapes()
			}
		},
	})
	registry.MustRegister(&podsCollector{all: s.inventory.Pods().All, usage: s.store.Pod})
	s.readiness = &readiness{synced: s.synced, status: s.scraper.Status, serves: s.serves, start: time.Now()}

	if serving := c.Generic.SecureServing; serving != nil {
		if c.ServingSecret.Name != "" {
			s.certificate = servingcert.New(servingcert.Config{
				Client:      client,
				Namespace:   c.ServingSecret.Namespace,
				Secret:      c.ServingSecret.Name,
				APIServices: apiServices,
				Fallback:    serving.Cert,
				Registerer:  registry,
			})
			serving.Cert = s.certificate
		}
		serving.Listener = newConnections(serving.Listener, maxConnections)
	}
	group, err := api.New(api.Config{
		NodeUsage:  s.store,
		PodUsage:   s.store,
		Scrapes:    scrapes{s.scraper, to},
		Nodes:      s.inventory.Nodes(),
		Pods:       s.inventory.Pods(),
		Registerer: registry,
	})
	if err != nil {
		return nil, fmt.Errorf("make metrics.k8s.io: %w", err)
	}
	build := c.Generic.BuildHandlerChainFunc
	c.Generic.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return build(group.Handler(next), c)
	}
	s.generic, err = c.Generic.Complete(nil).New("metrics-server", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, fmt.Errorf("make the API server: %w", err)
	}
	if err := group.Install(s.generic); err != nil {
		return nil, fmt.Errorf("install metrics.k8s.io: %w", err)
	}
	installMetrics(s.generic.Handler.NonGoRestfulMux, registry)
	if err := s.addChecks(); err != nil {
		return nil, fmt.Errorf("install the probes: %w", err)
	}
	return s, nil
}

// Run serves until ctx ends. Then /readyz fails at once, requests are still answered for a moment,
// and only after the last of them does scraping stop. It leaves nothing running.
func (s *Server) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	group.Go(func() error { return s.inventory.Run(work) })
	group.Go(func() error { return s.scraper.Run(work) })
	group.Go(func() error { return s.owners.run(work) })
	group.Go(func() error { return s.readiness.run(work) })
	if s.events != nil {
		group.Go(func() error { return s.events.run(work) })
	}
	if s.certificate != nil {
		group.Go(func() error { return s.certificate.Run(work) })
	}

	serve, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(work, cancel) // a part that fails ends the whole
	err := s.generic.PrepareRun().RunWithContext(serve)
	stop()
	err = errors.Join(err, group.Wait())
	s.kubelets.Close()
	return err
}

// ScrapePeriod is how often a node is scraped at a resolution. What is served is as old as a sample can be when the kubelet is
// asked, and then until it is asked again: only the second part is ours to shorten.
func ScrapePeriod(resolution time.Duration) time.Duration { return resolution * 4 / 5 }

// clientConfig is c for clients that read large lists: as protobuf, and without waiting between
// pages. The API server's own priority and fairness is the limit.
func clientConfig(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c.QPS = -1
	if c.UserAgent == "" {
		c.UserAgent = rest.DefaultKubernetesUserAgent() // by which the API server's audit log names us
	}
	return c
}
