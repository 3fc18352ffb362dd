package app

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	cliflag "k8s.io/component-base/cli/flag"

	"metrics-server/pkg/kubeapi"
	"metrics-server/pkg/server"
)

// Options are the flags. Make them with NewOptions; they hold no resources.
type Options struct {
	serving

	Resolution time.Duration
	Window     time.Duration // 0: Resolution
	NodeEvents bool
	History    time.Duration // 0: none is kept

	KubeletInsecureTLS        bool
	KubeletPlainHTTP          bool
	KubeletUseNodeStatusPort  bool
	KubeletPort               int
	KubeletAddressTypes       []string
	KubeletCAFile             string
	KubeletCAText             string
	KubeletClientCertificate  string
	KubeletClientKey          string
	KubeletRequestTimeout     time.Duration // 0: see requestTimeout
	KubeletRequestCompression bool
	KubeletServiceAccount     string // in the server's own namespace; see kubeletAccount
	NodeSelector              string
}

const (
	defaultResolution     = 15 * time.Second
	minResolution         = time.Second
	maxWindow             = 10 * time.Minute // twice the longest that HPAs ignore a new pod's CPU for
	kubeletSamplingPeriod = 10 * time.Second // no kubelet samples more often
	defaultRequestTimeout = 10 * time.Second
)

// metricsServer is the name of the Deployment of the server of resource metrics.
const metricsServer = "metrics-server"

// NewOptions returns the defaults.
func NewOptions() *Options {
	return &Options{
		serving:             newServing(metricsServer, kubeapi.MetricsGroup),
		Resolution:          defaultResolution,
		NodeEvents:          true,
		KubeletPort:         kubeapi.KubeletPort,
		KubeletAddressTypes: kubeapi.AddressTypes(),
	}
}

// Flags returns the flags of o by group, in the order of --help.
func (o *Options) Flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("metrics server")
	fs.DurationVar(&o.Resolution, "metric-resolution", o.Resolution,
		"The time span that a usage should cover. Every kubelet is scraped a little more often, every four fifths of it. "+
			"At least 1s; below 10s little is gained, as kubelets sample every 10 to 20 seconds.")
	fs.DurationVar(&o.Window, "metric-window", o.Window,
		"The time span over which CPU is averaged, if it should be longer than --metric-resolution: kubelets are scraped, "+
			"and memory is updated, as often as before. A longer window keeps autoscalers from following short peaks, "+
			"and delays their reaction to sustained load. At most 10m. Default: --metric-resolution.")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"The kubeconfig file for the API server; its credentials are also sent to the kubelets, unless "+
			"--kubelet-service-account or --kubelet-client-certificate is given. Default: the pod's service account.")
	fs.BoolVar(&o.NodeEvents, "node-events", o.NodeEvents,
		"Record an Event on a Node after two failed scrapes in a row, and when scraping works again.")
	fs.DurationVar(&o.History, "history", o.History,
		"Keep the usage of nodes, namespaces and workloads once a minute for this long, in memory, for metrics-server ui "+
			"and whoever may list the metrics. Whole minutes, at most 24h; each node takes about 0.3 KiB an hour, each "+
			"namespace and workload 0.55 KiB. A restart begins a new history. Default: none is kept.")
	fs.BoolVar(&o.ShowVersion, "version", o.ShowVersion, "Print the version and exit.")

	o.generic.addFlags(fss.FlagSet("generic"))
	o.kubeletFlags(&fss)
	// The doctor takes this setting from the server that it examines, so it has no such flag.
	fss.FlagSet("kubelet client").StringVar(&o.KubeletServiceAccount, "kubelet-service-account", o.KubeletServiceAccount,
		"The ServiceAccount, in the server's own namespace, whose short-lived tokens the server sends to the kubelets. It "+
			"needs the verb get on nodes/metrics and should have no other right, "+
			"and the server needs the verb create on its serviceaccounts/token. While such tokens are issued, the kubelets "+
			"get no other credentials. If the API server refuses to issue them, and the server itself may get nodes/metrics, "+
			"it sends its own credentials and logs a warning. Default: the server's own credentials, which whoever answers "+
			"in a kubelet's place can use. --kubelet-client-certificate takes precedence.")

	o.serving.addFlags(&fss)
	return fss
}

// serverFlagSet returns all flags of o in one set.
func serverFlagSet(o *Options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("metrics-server", pflag.ContinueOnError)
	groups := o.Flags()
	for _, g := range groups.FlagSets {
		fs.AddFlagSet(g)
	}
	fs.BoolP("help", "h", false, "") // cobra's
	return fs
}

// defaultEmptyLists sets lists that are empty but must not be to their defaults, since templates write an
// empty list for "not set". It returns the names of their flags.
func (o *Options) defaultEmptyLists() (flags []string) {
	if len(o.KubeletAddressTypes) == 0 {
		o.KubeletAddressTypes = kubeapi.AddressTypes()
		flags = append(flags, addressTypesFlag)
	}
	return append(flags, o.serving.defaultEmptyLists()...)
}

// kubeletFlags adds the flags that determine which kubelets are asked and how. The doctor has them too.
func (o *Options) kubeletFlags(fss *cliflag.NamedFlagSets) {
	fs := fss.FlagSet("kubelet client")
	fs.BoolVar(&o.KubeletInsecureTLS, "kubelet-insecure-tls", o.KubeletInsecureTLS,
		"Do not verify the kubelets' serving certificates. Whoever can answer in a kubelet's place can then feed the "+
			"autoscalers any number and read the token that is sent; prefer --kubelet-certificate-authority.")
	fs.BoolVar(&o.KubeletUseNodeStatusPort, "kubelet-use-node-status-port", o.KubeletUseNodeStatusPort,
		"Use the kubelet's port from the node's status. If the status has one, it takes precedence over --kubelet-port.")
	fs.IntVar(&o.KubeletPort, "kubelet-port", o.KubeletPort, "The port of the kubelets.")
	fs.StringSliceVar(&o.KubeletAddressTypes, "kubelet-preferred-address-types", o.KubeletAddressTypes,
		"The types of node address to connect to, in order of preference. If one cannot be dialled, the next is tried.")
	fs.StringVar(&o.KubeletCAFile, "kubelet-certificate-authority", o.KubeletCAFile,
		"File with the CA certificates for verifying the kubelets' serving certificates. It is reloaded when it changes.")
	fs.StringVar(&o.KubeletCAText, "kubelet-certificate-authority-text", o.KubeletCAText,
		"The CA certificates as PEM text, instead of --kubelet-certificate-authority.")
	fs.StringVar(&o.KubeletClientCertificate, "kubelet-client-certificate", o.KubeletClientCertificate,
		"File with the client certificate for the kubelets; no token is then sent to them. It is reloaded when it changes.")
	fs.StringVar(&o.KubeletClientKey, "kubelet-client-key", o.KubeletClientKey,
		"File with the key of --kubelet-client-certificate.")
	fs.DurationVar(&o.KubeletRequestTimeout, "kubelet-request-timeout", o.KubeletRequestTimeout,
		"How long a kubelet may take to answer. Default: 10s, but at most seven tenths of --metric-resolution.")
	fs.BoolVar(&o.KubeletRequestCompression, "kubelet-request-compression", o.KubeletRequestCompression,
		"Ask the kubelets for gzip. It saves four fifths of the traffic and costs CPU on both ends.")
	fs.StringVarP(&o.NodeSelector, "node-selector", "l", o.NodeSelector,
		"Serve only the nodes that match this label selector, and the pods on them.")
	fs.BoolVar(&o.KubeletPlainHTTP, "deprecated-kubelet-completely-insecure", o.KubeletPlainHTTP,
		"DEPRECATED: speak plain HTTP to the kubelets, without encryption and without credentials.")
}

// Validate returns every error in o, each with its remedy. Its only access to the system is to check that
// the named files exist.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	readable := func(flag, file string) {
		if err := checkReadable(flag, file); err != nil {
			errs = append(errs, err)
		}
	}

	if o.Resolution < minResolution {
		bad("--metric-resolution: %v is too short: give at least %v (15s suits most clusters)", o.Resolution, minResolution)
	}
	switch {
	case o.Window == 0: // the resolution
	case o.Window < o.Resolution:
		bad("--metric-window: %v is shorter than --metric-resolution, %v, and no usage can cover less than the time between "+
			"two scrapes: give at least %v, or leave the flag out", o.Window, o.Resolution, o.Resolution)
	case o.Window > maxWindow:
		bad("--metric-window: %v is too long, as autoscalers would act on outdated load: give at most %v (1m or 2m "+
			"smooths short peaks), and slow autoscalers down by spec.behavior instead", o.Window, maxWindow)
	}
	if o.History != 0 && (o.History < time.Minute || o.History > server.MaxHistory || o.History%time.Minute != 0) {
		bad("--history: %v: give whole minutes, at most %v, such as 2h, or leave the flag out", o.History, server.MaxHistory)
	}
	if o.KubeletRequestTimeout < 0 {
		bad("--kubelet-request-timeout: %v is negative: give a positive duration, or leave the flag out",
			o.KubeletRequestTimeout)
	}
	if o.KubeletPort == 0 && !o.KubeletUseNodeStatusPort {
		bad("--kubelet-port: 0 is not a port: give one between 1 and 65535, or --kubelet-use-node-status-port")
	}
	if _, err := labels.Parse(o.NodeSelector); err != nil {
		bad("--node-selector: %w: write it like \"pool=web,zone!=b\"", err)
	}

	readable("--kubelet-certificate-authority", o.KubeletCAFile)
	readable("--kubelet-client-certificate", o.KubeletClientCertificate)
	readable("--kubelet-client-key", o.KubeletClientKey)
	if o.KubeletServiceAccount != "" {
		const account = "--kubelet-service-account"
		if problems := validation.IsDNS1123Subdomain(o.KubeletServiceAccount); len(problems) > 0 {
			bad("%s: %q is not the name of a ServiceAccount: %s",
				account, o.KubeletServiceAccount, strings.Join(problems, "; "))
		}
		if _, err := namespace(namespaceFile); err != nil {
			bad("%s: %w", account, err)
		}
	}
	kubelets := o.kubeletConfig(nil)
	errs = append(errs, kubelets.Validate())
	errs = append(errs, o.serving.validate()...)
	return errors.Join(errs...)
}

// requestTimeout returns how long one kubelet may take to answer.
func (o *Options) requestTimeout() time.Duration {
	if o.KubeletRequestTimeout > 0 {
		return o.KubeletRequestTimeout
	}
	return min(defaultRequestTimeout, o.Resolution*7/10)
}
