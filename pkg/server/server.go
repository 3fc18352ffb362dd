// Package server is the composition root: it wires the inventory, the scraper, the store and the
// API into one generic API server with its probes and metrics. No other package knows all of them.
package server

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/resource"
	"metrics-server/pkg/apiserver"
	"metrics-server/pkg/inventory"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/kubelet"
	"metrics-server/pkg/kubelettoken"
	"metrics-server/pkg/revision"
	"metrics-server/pkg/sample"
	"metrics-server/pkg/scrape"
	"metrics-server/pkg/store"
)

// KubeletConfig configures the connections to kubelets.
type KubeletConfig = kubelet.Config

// Config configures a Server.
type Config struct {
	Generic      *genericapiserver.Config // from NewGenericConfig, with serving and access set
	Rest         *rest.Config             // for the API server
	Kubelet      KubeletConfig
	NodeSelector string        // label selector; empty: all nodes
	Resolution   time.Duration // nodes are scraped every ScrapePeriod(Resolution)
	Window       time.Duration // over which CPU is averaged; default Resolution
	Timeout      time.Duration // of one scrape
	NodeEvents   bool          // record Events on nodes whose scraping fails
	// History is how long past usage is kept; 0: not at all.
	History time.Duration
	// KubeletAccount is the service account whose tokens are shown to kubelets. Without a name, or
	// with a client certificate for kubelets, the credentials in Kubelet are used.
	KubeletAccount types.NamespacedName
	// ServingSecret contains the serving certificate, which this server maintains. Without a name,
	// only the certificate in Generic is used.
	ServingSecret types.NamespacedName
	// ServingSecretOptional means that the Secret was not configured explicitly: it is used if it
	// exists.
	ServingSecretOptional bool
}

// NewGenericConfig returns the configuration of the generic API server for this server at the given
// version. Serving, authentication, authorization and audit are left to the caller.
func NewGenericConfig(version string) *genericapiserver.Config {
	return apiserver.NewGenericConfig("metrics-server", version, resource.Group)
}

// Server scrapes kubelets and serves metrics.k8s.io. Create it with New.
type Server struct {
	serving   *apiserver.Server
	inventory *inventory.Inventory
	scraper   *scrape.Scraper
	kubelets  *kubelet.Clients
	tokens    *kubelettoken.Source // nil if kubelets are shown this server's own credentials, if any
	store     *store.Store
	clock     *revision.Clock
	podsGone  *api.Deletions
	nodesGone *api.Deletions
	sink      *sink
	nodes     *nodes
	owners    *owners
	events    *events   // nil if disabled
	recorder  *recorder // nil if no history is kept
	readiness *readiness
	metrics   *prometheus.Registry // our own
}

// New wires a Server. It opens no connections.
func New(c Config) (*Server, error) {
	config := apiserver.ClientConfig(c.Rest)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	client, err := kubernetes.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	objects, err := inventory.NewClient(config, httpClient, c.History > 0)
	if err != nil {
		return nil, fmt.Errorf("make a client for the nodes and pods of the API server: %w", err)
	}
	clock := revision.NewClock(time.Now())
	s := &Server{
		metrics: prometheus.NewRegistry(),
		clock:   clock, podsGone: api.NewDeletions(clock), nodesGone: api.NewDeletions(clock),
	}
	if c.NodeEvents {
		if s.events, err = newEvents(config); err != nil {
			return nil, err
		}
	}
	if err := s.addKubelets(c, client); err != nil {
		return nil, err
	}
	s.addCollection(c, client, objects)
	s.recorder = newRecorder(c, s)
	s.recorder.serveHistory(c.Generic)
	if err := s.addServing(c, client); err != nil {
		return nil, err
	}
	return s, nil
}

// addKubelets adds the clients of kubelets, and the tokens for them.
func (s *Server) addKubelets(c Config, client kubernetes.Interface) (err error) {
	c.Kubelet.OwnAccess = newOwnAccess(client).check
	if serving := c.Generic.SecureServing; serving != nil {
		c.Kubelet.ServingCertificate = func() []byte {
			certificate, _ := serving.Cert.CurrentCertKeyContent()
			return certificate
		}
	}
	if c.KubeletAccount.Name != "" {
		s.tokens = kubelettoken.New(kubelettoken.Config{Client: client, Account: c.KubeletAccount})
		c.Kubelet.Tokens = s.tokens
	}
	s.kubelets, err = kubelet.New(c.Kubelet)
	s.metrics.MustRegister(newOwnCredentials(s.showsOwnCredentials))
	return err
}

// addCollection adds everything between the watches of the API server, the kubelets and the store.
func (s *Server) addCollection(c Config, client kubernetes.Interface, objects rest.Interface) {
	s.store = store.New(store.Config{
		Resolution: c.Resolution,
		Window:     c.Window,
		Capacity:   func(node string) sample.Capacity { return s.nodes.capacity(node) },
		Clock:      s.clock,
		// A pod that is not in the inventory was never served, or OnPodsLeaving has recorded it: otherwise a kubelet
		// could fill the log with names that it invents.
		OnPodUnlisted: func(namespace, name string) {
			if _, exists := s.inventory.Pods().Get(namespace, name); exists {
				s.podsGone.Add(sample.Object{Namespace: namespace, Name: name})
			}
		},
	})
	s.owners = newOwners(client, s.store)
	s.sink = newSink(s.store, s.owners, s.metrics)
	scraping := scrape.Config{
		Period:     ScrapePeriod(c.Resolution),
		Timeout:    c.Timeout,
		Sink:       s.sink,
		Registerer: s.metrics,
	}
	if s.events != nil {
		scraping.OnFailing, scraping.OnRecovered = s.events.failing, s.events.recovered
	}
	s.scraper = scrape.New(scraping)
	s.nodes = newNodes(s.kubelets, s.scraper, s.sink)
	s.inventory = inventory.New(inventory.Config{
		Client:       objects,
		NodeSelector: c.NodeSelector,
		OnNode:       s.nodes.set,
		// A watch that is resumed must find the deletion as soon as it does not find the object.
		OnNodesLeaving: s.nodesGone.Record,
		OnPodsLeaving:  s.podsGone.Record,
		OnNodeGone:     func(o sample.Object) { s.nodes.remove(o.Name) },
		OnPodGone:      func(o sample.Object) { s.store.RemovePod(o.Namespace, o.Name) },
		// A kubelet may list a pod before the API server tells us of it.
		OnPodNew: func(o sample.Object) { s.store.PodAppeared(o.Namespace, o.Name, time.Now()) },
		Publish:  func(change func(sample.Revision)) { s.clock.Publish(time.Now(), change) },
	})
	s.metrics.MustRegister(&podsCollector{
		all: s.inventory.Pods().All, usage: s.store.Pod, someNodes: c.NodeSelector != "",
	})
	s.readiness = &readiness{
		synced: s.synced, status: s.scraper.Status, serves: s.serves, start: time.Now(), selector: c.NodeSelector,
	}
}

// addServing adds the API server of metrics.k8s.io.
func (s *Server) addServing(c Config, client kubernetes.Interface) error {
	storages, err := resource.Storages(resource.Config{
		NodeUsage:  s.store,
		PodUsage:   s.store,
		Scrapes:    scrapes{s.scraper, s.sink},
		Nodes:      s.inventory.Nodes(),
		Pods:       s.inventory.Pods(),
		Clock:      s.clock,
		NodesGone:  s.nodesGone,
		PodsGone:   s.podsGone,
		Registerer: s.metrics,
	})
	if err != nil {
		return err
	}
	s.serving, err = apiserver.New(apiserver.Config{
		Name:           "metrics-server",
		Generic:        c.Generic,
		Registry:       s.metrics,
		Client:         client,
		APIServices:    kubeapi.MetricsAPIServices(),
		Secret:         c.ServingSecret,
		SecretOptional: c.ServingSecretOptional,
	})
	if err != nil {
		return err
	}
	if err := resource.Group.Install(s.serving.GenericAPIServer, storages); err != nil {
		return err
	}
	if err := s.addChecks(); err != nil {
		return fmt.Errorf("install the probes: %w", err)
	}
	return nil
}

// Run serves until ctx ends, as apiserver.Server.Run describes it.
func (s *Server) Run(ctx context.Context) error {
	parts := []func(context.Context) error{s.inventory.Run, s.scraper.Run, s.owners.run, s.readiness.run}
	if s.tokens != nil {
		parts = append(parts, s.tokens.Run)
	} else if s.showsOwnCredentials() {
		klog.FromContext(ctx).Info("Warning: Kubelets are shown this server's own credentials, which let whoever answers "+
			"in a kubelet's place act as this server",
			"cause", "--kubelet-service-account is not given",
			"remedy", "apply the manifests of this release, which have a service account for kubelets, or give "+
				"--kubelet-client-certificate")
	}
	if s.events != nil {
		parts = append(parts, s.events.run)
	}
	if s.recorder != nil {
		parts = append(parts, s.recorder.run)
	}
	err := s.serving.Run(ctx, parts...)
	s.kubelets.Close()
	return err
}

// showsOwnCredentials reports whether kubelets are shown credentials of this server that they could
// use elsewhere.
func (s *Server) showsOwnCredentials() bool {
	return s.kubelets.OwnReplayable() && (s.tokens == nil || s.tokens.Own())
}

// ScrapePeriod returns how often a node is scraped at a resolution. The age of a served usage is
// the age of the sample when the kubelet is scraped, plus the time until the next scrape; only the
// latter is under our control.
func ScrapePeriod(resolution time.Duration) time.Duration { return resolution * 4 / 5 }
