package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// Options are the flags. Make them with NewOptions; they hold no resources.
type Options struct {
	Resolution  time.Duration
	Kubeconfig  string
	NodeEvents  bool
	ShowVersion bool

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
	NodeSelector              string
	ServingSecret             string // in the server's own namespace; see namespace

	SecureServing  *genericoptions.SecureServingOptionsWithLoopback
	Authentication *genericoptions.DelegatingAuthenticationOptions
	Authorization  *genericoptions.DelegatingAuthorizationOptions
	Audit          *genericoptions.AuditOptions
	Features       *genericoptions.FeatureOptions
	Logging        *logs.Options
}

const (
	defaultResolution     = 15 * time.Second
	minResolution         = time.Second
	kubeletSamplingPeriod = 10 * time.Second // no kubelet samples more often
	defaultRequestTimeout = 10 * time.Second
	defaultKubeletPort    = 10250
)

// NewOptions returns the defaults.
func NewOptions() *Options {
	o := &Options{
		Resolution:          defaultResolution,
		NodeEvents:          true,
		KubeletPort:         defaultKubeletPort,
		KubeletAddressTypes: []string{"Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"},

		SecureServing:  genericoptions.NewSecureServingOptions().WithLoopback(),
		Authentication: genericoptions.NewDelegatingAuthenticationOptions(),
		Authorization:  genericoptions.NewDelegatingAuthorizationOptions(),
		Audit:          genericoptions.NewAuditOptions(),
		Features:       genericoptions.NewFeatureOptions(),
		Logging:        logs.NewOptions(),
	}
	o.SecureServing.CipherSuites = modernCipherSuites()
	// Clients keep few connections and send few requests at a time: the aggregator, probes, monitoring. Each frame of HTTP/2 goes
	// through three goroutines, which is nearly half of the CPU time of a list.
	o.SecureServing.DisableHTTP2Serving = true
	// Priority and fairness would watch objects that the service account may not read.
	o.Features.EnablePriorityAndFairness = false
	return o
}

// modernCipherSuites returns the names of the cipher suites of TLS 1.2 with forward secrecy and authenticated encryption. Go itself
// also offers two with CBC and SHA-1.
func modernCipherSuites() (names []string) {
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) && strings.HasPrefix(s.Name, "TLS_ECDHE_") && !strings.Contains(s.Name, "_CBC_") {
			names = append(names, s.Name)
		}
	}
	return names
}

// Flags returns the flags of o by group, in the order of --help.
func (o *Options) Flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("metrics server")
	fs.DurationVar(&o.Resolution, "metric-resolution", o.Resolution,
		"The window that a usage aims at. Every kubelet is asked for samples a little more often, every four fifths of it. At least 1s; below 10s little is gained, as kubelets sample every 10 to 20 seconds.")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"The kubeconfig file for the API server; its credentials are also shown to the kubelets. Default: the pod's service account.")
	fs.BoolVar(&o.NodeEvents, "node-events", o.NodeEvents,
		"Record an Event on a Node when it cannot be scraped twice in a row, and when it can be again.")
	fs.BoolVar(&o.ShowVersion, "version", o.ShowVersion, "Print the version and exit.")

	o.kubeletFlags(&fss)

	fs = fss.FlagSet("apiserver secure serving")
	o.SecureServing.AddFlags(fs)
	fs.StringVar(&o.ServingSecret, "serving-certificate-secret", o.ServingSecret,
		"The Secret, in the server's own namespace, with the serving certificate. The server makes the certificate and the CA that signs it, renews both, "+
			"and writes the CA into the caBundle of the APIServices of metrics.k8s.io, so that the API server verifies whom it asks. Until the Secret can be read, a self-signed certificate is served. "+
			"The namespace is that of the pod's service account, or POD_NAMESPACE in the environment.")
	fs.Lookup("disable-http2-serving").Usage = "Serve HTTP/1.1 only; with =false also HTTP/2, which takes up to twice the CPU time for a list."
	fs.Lookup("tls-cipher-suites").Usage = "Comma-separated list of cipher suites for TLS 1.2; those of TLS 1.3 cannot be chosen. " +
		"The default are all that have both forward secrecy and authenticated encryption."
	o.Authentication.AddFlags(fss.FlagSet("apiserver authentication"))
	o.Authorization.AddFlags(fss.FlagSet("apiserver authorization"))
	o.Audit.AddFlags(fss.FlagSet("apiserver audit log"))
	o.Features.AddFlags(fss.FlagSet("features"))
	logsapi.AddFlags(o.Logging, fss.FlagSet("logging"))
	return fss
}

// kubeletFlags adds the flags that say which kubelets are asked and how: the doctor has them too.
func (o *Options) kubeletFlags(fss *cliflag.NamedFlagSets) {
	fs := fss.FlagSet("kubelet client")
	fs.BoolVar(&o.KubeletInsecureTLS, "kubelet-insecure-tls", o.KubeletInsecureTLS,
		"Do not verify the kubelets' serving certificates. Whoever can answer in a kubelet's place can then feed the autoscalers any number and read the token that is sent; prefer --kubelet-certificate-authority.")
	fs.BoolVar(&o.KubeletUseNodeStatusPort, "kubelet-use-node-status-port", o.KubeletUseNodeStatusPort,
		"Use the kubelet's port from the node's status. Where it has one, it takes precedence over --kubelet-port.")
	fs.IntVar(&o.KubeletPort, "kubelet-port", o.KubeletPort, "The port of the kubelets.")
	fs.StringSliceVar(&o.KubeletAddressTypes, "kubelet-preferred-address-types", o.KubeletAddressTypes,
		"The types of node address to connect to, in order of preference. An address that cannot be dialled falls back to the next.")
	fs.StringVar(&o.KubeletCAFile, "kubelet-certificate-authority", o.KubeletCAFile,
		"File with the CA certificates that the kubelets' serving certificates are verified with. Read again when it changes.")
	fs.StringVar(&o.KubeletCAText, "kubelet-certificate-authority-text", o.KubeletCAText,
		"The same as PEM text instead of a file.")
	fs.StringVar(&o.KubeletClientCertificate, "kubelet-client-certificate", o.KubeletClientCertificate,
		"File with the client certificate for the kubelets; no token is then sent to them. Read again when it changes.")
	fs.StringVar(&o.KubeletClientKey, "kubelet-client-key", o.KubeletClientKey,
		"File with the key of --kubelet-client-certificate.")
	fs.DurationVar(&o.KubeletRequestTimeout, "kubelet-request-timeout", o.KubeletRequestTimeout,
		"How long a kubelet may take to answer. Default: 10s, or seven tenths of a shorter --metric-resolution.")
	fs.BoolVar(&o.KubeletRequestCompression, "kubelet-request-compression", o.KubeletRequestCompression,
		"Ask the kubelets for gzip. It saves four fifths of the traffic and costs CPU on both ends.")
	fs.StringVarP(&o.NodeSelector, "node-selector", "l", o.NodeSelector,
		"Serve only the nodes that match this label selector, and the pods on them.")
	fs.BoolVar(&o.KubeletPlainHTTP, "deprecated-kubelet-completely-insecure", o.KubeletPlainHTTP,
		"DEPRECATED: speak plain HTTP to the kubelets, without encryption and without credentials.")
}

// Validate returns everything that is wrong with o, each with the remedy. It has no side effects
// beyond looking whether the named files are there.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	exclusive := func(a string, hasA bool, b string, hasB bool) {
		if hasA && hasB {
			bad("%s and %s exclude each other: give one of them", a, b)
		}
	}
	readable := func(flag, file string) {
		if file == "" {
			return
		}
		if st, err := os.Stat(file); err != nil {
			bad("%s: %w: give the path of a file that this process can read", flag, err)
		} else if st.IsDir() {
			bad("%s: %q is a directory: give the path of a file", flag, file)
		}
	}

	if o.Resolution < minResolution {
		bad("--metric-resolution: %v is too short: give at least %v (15s suits most clusters)", o.Resolution, minResolution)
	}
	if o.KubeletRequestTimeout < 0 {
		bad("--kubelet-request-timeout: %v is negative: give a positive duration, or leave the flag out", o.KubeletRequestTimeout)
	}
	if o.SecureServing.BindPort == 0 {
		bad("--secure-port: 0 would serve nothing: give a port, as the Service and the probes name it")
	}
	if o.KubeletPort < 1 || o.KubeletPort > 65535 {
		bad("--kubelet-port: %d is not a port: give one between 1 and 65535", o.KubeletPort)
	}
	if len(o.KubeletAddressTypes) == 0 {
		bad("--kubelet-preferred-address-types is empty: name at least one of InternalIP, Hostname, InternalDNS, ExternalIP, ExternalDNS")
	}
	for _, t := range o.KubeletAddressTypes {
		if t == "" || strings.ContainsAny(t, " \t") {
			bad("--kubelet-preferred-address-types: %q is not an address type: separate types by commas only", t)
		}
	}
	if _, err := labels.Parse(o.NodeSelector); err != nil {
		bad("--node-selector: %w: write it like \"pool=web,zone!=b\"", err)
	}

	ca, caText := o.KubeletCAFile != "", o.KubeletCAText != ""
	cert, key := o.KubeletClientCertificate != "", o.KubeletClientKey != ""
	exclusive("--kubelet-certificate-authority", ca, "--kubelet-certificate-authority-text", caText)
	exclusive("--kubelet-certificate-authority", ca, "--kubelet-insecure-tls", o.KubeletInsecureTLS)
	exclusive("--kubelet-certificate-authority-text", caText, "--kubelet-insecure-tls", o.KubeletInsecureTLS)
	if cert != key {
		bad("--kubelet-client-certificate and --kubelet-client-key belong together: give both or neither")
	}
	const plain = "--deprecated-kubelet-completely-insecure"
	exclusive(plain, o.KubeletPlainHTTP, "--kubelet-insecure-tls", o.KubeletInsecureTLS)
	exclusive(plain, o.KubeletPlainHTTP, "--kubelet-certificate-authority", ca)
	exclusive(plain, o.KubeletPlainHTTP, "--kubelet-certificate-authority-text", caText)
	exclusive(plain, o.KubeletPlainHTTP, "--kubelet-client-certificate", cert)
	exclusive(plain, o.KubeletPlainHTTP, "--kubelet-client-key", key)
	readable("--kubelet-certificate-authority", o.KubeletCAFile)
	readable("--kubelet-client-certificate", o.KubeletClientCertificate)
	readable("--kubelet-client-key", o.KubeletClientKey)
	readable("--kubeconfig", o.Kubeconfig)

	if o.ServingSecret != "" {
		const secret = "--serving-certificate-secret"
		exclusive(secret, true, "--tls-cert-file", o.SecureServing.ServerCert.CertKey.CertFile != "")
		exclusive(secret, true, "--tls-private-key-file", o.SecureServing.ServerCert.CertKey.KeyFile != "")
		if problems := validation.IsDNS1123Subdomain(o.ServingSecret); len(problems) > 0 {
			bad("%s: %q is not the name of a Secret: %s", secret, o.ServingSecret, strings.Join(problems, "; "))
		}
		if _, err := namespace(namespaceFile); err != nil {
			bad("%s: %w", secret, err)
		}
	}
	if _, err := cliflag.TLSVersion(o.SecureServing.MinTLSVersion); err != nil {
		bad("--tls-min-version: %w: give VersionTLS12 or VersionTLS13", err)
	}
	if _, err := cliflag.TLSCipherSuites(o.SecureServing.CipherSuites); err != nil {
		bad("--tls-cipher-suites: %w: see --help for their names", err)
	}
	for _, group := range [][]error{
		o.SecureServing.Validate(), o.Authentication.Validate(), o.Authorization.Validate(),
		o.Audit.Validate(), o.Features.Validate(),
	} {
		errs = append(errs, group...)
	}
	for _, err := range logsapi.Validate(o.Logging, nil, nil) {
		bad("--logging-format and the flags beside it: %w", err)
	}
	return errors.Join(errs...)
}

// namespaceFile is where a pod finds the namespace of its service account, which is its own.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// namespace is the one that this server runs in: that in the environment, or else in file.
func namespace(file string) (string, error) {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the server's own namespace is unknown: %w: set POD_NAMESPACE in the environment, or run in a pod with a service account", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// requestTimeout is how long one kubelet may take to answer.
func (o *Options) requestTimeout() time.Duration {
	if o.KubeletRequestTimeout > 0 {
		return o.KubeletRequestTimeout
	}
	return min(defaultRequestTimeout, o.Resolution*7/10)
}
