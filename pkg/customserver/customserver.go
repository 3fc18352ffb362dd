// Package customserver is the composition root of the command custom-metrics: it wires the metrics that
// autoscalers want (demand), the scrapes of their pods (podtarget, schedule), the series of these pods
// (appmetrics), the queries of other servers (backend) and the APIs (api/custom, api/external) into one generic
// API server with its probes and metrics.
//
//	HPAs --demand--> wants --collector--> pages of pods --appmetrics--> series --values--> api/custom, api/external
//	                       --backends---> last answers of backends ------------/
package customserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"

	"metrics-server/pkg/api/custom"
	externalapi "metrics-server/pkg/api/external"
	"metrics-server/pkg/apiserver"
	"metrics-server/pkg/definition"
	"metrics-server/pkg/demand"
	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/podtarget"
)

// Config configures a Server.
type Config struct {
	Generic *genericapiserver.Config // from NewGenericConfig, with serving and access set
	Rest    *rest.Config             // for the API server
	MaxPods int                      // of one metric
	// External says that external.metrics.k8s.io is served, too.
	External bool
	// File is the path of the administrator's file with backends and named metrics. "" for none.
	File string
	// ServingSecret and ServingSecretOptional are Secret and SecretOptional of apiserver.Config.
	ServingSecret         types.NamespacedName
	ServingSecretOptional bool
}

// NewGenericConfig returns the configuration of the generic API server for this server at the given
// version. external is that of Config. Serving, authentication, authorization and audit are left to the caller.
func NewGenericConfig(version string, external bool) *genericapiserver.Config {
	const title = "metrics-server custom-metrics"
	if external {
		return apiserver.NewGenericConfig(title, version, custom.Group, externalapi.Group)
	}
	return apiserver.NewGenericConfig(title, version, custom.Group)
}

// Server scrapes pods for the metrics that autoscalers want, and serves custom.metrics.k8s.io and, if it is
// configured so, external.metrics.k8s.io. Create it with New.
type Server struct {
	serving   *apiserver.Server
	demand    *demand.Demand
	collector *collector
	backends  *backends
	settings  *settings // nil without a file
	tables    tables
	readiness readiness
	start     time.Time
}

const (
	// parallel limits concurrent evaluations, so that hostile expressions take at most twice the
	// memory that one may take.
	parallel = 2
	// evaluationTimeout limits one of them.
	evaluationTimeout = time.Second
)

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
	dynamicClient, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("make a client for the API server: %w", err)
	}
	pods, err := podtarget.New(podtarget.Config{})
	if err != nil {
		return nil, fmt.Errorf("make a client for pods: %w", err)
	}

	s := &Server{start: time.Now()}
	registry := prometheus.NewRegistry()
	scrapes := newScrapes(registry)
	limits := newLimits()
	s.collector = newCollector(limits, pods, scrapes.report)
	s.backends = newBackends(limits, newQueries(registry))
	s.demand = demand.New(demand.Config{
		Client:   client,
		Dynamic:  dynamicClient,
		Mapper:   restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		External: c.External,
		MaxPods:  c.MaxPods,
		OnWant:   s.set,
		OnGone:   s.remove,
	})
	if c.File != "" {
		s.settings = &settings{path: c.File}
		if _, err := s.settings.load(s.apply); err != nil {
			return nil, err
		}
	}
	s.readiness.read, s.readiness.asked = s.demand.Synced, s.asked
	registry.MustRegister(&stateCollector{collector: s.collector, backends: s.backends, settings: s.settings})

	apiServices := kubeapi.CustomMetricsAPIServices()
	if c.External {
		apiServices = append(apiServices, kubeapi.ExternalMetricsAPIServices()...)
	}
	s.serving, err = apiserver.New(apiserver.Config{
		Name:           "custom-metrics",
		Generic:        c.Generic,
		Registry:       registry,
		Client:         client,
		APIServices:    apiServices,
		Service:        serviceOf(c.ServingSecret.Name),
		Secret:         c.ServingSecret,
		SecretOptional: c.ServingSecretOptional,
	})
	if err != nil {
		return nil, err
	}
	v := &values{
		find: s.demand.Find, wants: s.demand.Wants, collected: s.collector.find, store: s.collector.store,
		polled: s.backends.find, tables: &s.tables, state: s.note,
	}
	custom.Install(s.serving.GenericAPIServer, v)
	if c.External {
		externalapi.Install(s.serving.GenericAPIServer, v)
	}
	if err := s.addChecks(); err != nil {
		return nil, fmt.Errorf("install the probes: %w", err)
	}
	return s, nil
}

// serviceOf returns the Service that belongs to a Secret of the serving certificate in deploy/; "" if the Secret
// is called otherwise.
func serviceOf(secret string) string {
	name, ok := strings.CutSuffix(secret, kubeapi.ServingSecretSuffix)
	if !ok {
		return ""
	}
	return name
}

// Run serves until ctx ends, as apiserver.Server.Run describes it.
func (s *Server) Run(ctx context.Context) error {
	return s.serving.Run(ctx, s.demand.Run, s.collector.run, s.poll, s.logReadiness)
}

// set collects a Want, which is new or has changed, or has its backend polled.
func (s *Server) set(w *demand.Want) {
	switch {
	case w.Named != nil && !w.Series && w.Err == nil: // the values of all objects are a Want of their own
		s.remove(w.Request)
	case w.Backend == "":
		s.backends.remove(w.Request)
		s.collector.set(w)
	default:
		s.collector.remove(w.Request)
		s.backends.set(w)
	}
}

// remove forgets a Want.
func (s *Server) remove(r demand.Request) {
	s.collector.remove(r)
	s.backends.remove(r)
	s.tables.remove(r)
}

// reloadEvery is how often the administrator's file is read: a ConfigMap takes up to a minute to arrive anyway.
const reloadEvery = 10 * time.Second

// poll polls the backends and reloads the administrator's file until ctx ends.
func (s *Server) poll(ctx context.Context) error {
	s.backends.run(ctx, reloadEvery, func() { s.reload(ctx) })
	return nil
}

// reload applies the administrator's file if it has changed. If it has a mistake, the
// previous version stays in effect.
func (s *Server) reload(ctx context.Context) {
	if s.settings == nil {
		return
	}
	log := klog.FromContext(ctx)
	switch restored, err := s.settings.load(s.apply); {
	case err != nil:
		log.Info("Warning: The administrator's file (--config) cannot be used, so the previous version stays in effect",
			"err", err)
	case restored:
		log.Info("The administrator's file (--config) matches the version in effect again", "file", s.settings.path)
	}
}

// apply has the server do what the administrator's file says.
func (s *Server) apply(f *loaded) error {
	if err := s.backends.apply(f.Backends, f.rules); err != nil {
		return err
	}
	for i := range f.problems {
		p := &f.problems[i]
		if p.LeftOut {
			klog.InfoS("Warning: Part of the configuration of prometheus-adapter is not served", "file", f.Adapter.File,
				"problem", p)
		} else {
			klog.InfoS("Warning: Part of the configuration of prometheus-adapter has another meaning here", "file",
				f.Adapter.File, "problem", p)
		}
	}
	s.demand.SetDefaultBackend(f.Default)
	s.demand.SetNamed(definition.Named(f.File))
	klog.InfoS("Loaded the administrator's file (--config)", "file", s.settings.path, "backends", len(f.Backends),
		"default", f.Default, "metrics", len(f.Metrics))
	return nil
}

// note fills in the default backend, and what is wrong with the administrator's file and the backends.
func (s *Server) note(n *kubeapi.Notes) {
	if s.settings != nil {
		of := s.settings.state()
		n.DefaultBackend, n.InvalidFile, n.LeftOutRules = of.byDefault, !of.valid, of.leftOut
	}
	n.FailingBackends = nil // there are some if an answer has several parts
	statuses := s.backends.statuses()
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		if st := statuses[name]; 2*st.Failing > st.Targets {
			n.FailingBackends = append(n.FailingBackends, kubeapi.BackendNote{
				Name: name, Queries: st.Targets, Failing: st.Failing,
			})
		}
	}
}
