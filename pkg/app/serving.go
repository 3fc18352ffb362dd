package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/klog/v2"

	"metrics-server/pkg/kubeapi"
)

// serving are the flags that every aggregated API server of this program has: how it reaches the API server,
// and how it serves.
type serving struct {
	name  string // of the Deployment and of what belongs to it
	group string // API group

	Kubeconfig        string
	ShowVersion       bool
	ServingSecret     string // in the server's own namespace; see namespace
	servingSecretFlag *pflag.Flag

	generic        genericRun
	SecureServing  *genericoptions.SecureServingOptionsWithLoopback
	Authentication *genericoptions.DelegatingAuthenticationOptions
	Authorization  *genericoptions.DelegatingAuthorizationOptions
	Audit          *genericoptions.AuditOptions
	Features       *genericoptions.FeatureOptions
	Logging        *logs.Options
}

func newServing(name, group string) serving {
	o := serving{
		name: name, group: group,
		generic:        newGenericRun(name),
		SecureServing:  genericoptions.NewSecureServingOptions().WithLoopback(),
		Authentication: genericoptions.NewDelegatingAuthenticationOptions(),
		Authorization:  genericoptions.NewDelegatingAuthorizationOptions(),
		Audit:          genericoptions.NewAuditOptions(),
		Features:       genericoptions.NewFeatureOptions(),
		Logging:        logs.NewOptions(),
	}
	o.SecureServing.CipherSuites = modernCipherSuites()
	// The clients (aggregator, probes, monitoring) keep few connections and send few requests at a time.
	// Each frame of HTTP/2 goes through three goroutines, which takes nearly half of a list's CPU time.
	o.SecureServing.DisableHTTP2Serving = true
	// Priority and fairness would watch objects that the service account may not read.
	o.Features.EnablePriorityAndFairness = false
	return o
}

// modernCipherSuites returns the names of the TLS 1.2 cipher suites with forward secrecy and authenticated
// encryption. Go's defaults also have two with CBC and SHA-1.
func modernCipherSuites() (names []string) {
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) &&
			strings.HasPrefix(s.Name, "TLS_ECDHE_") && !strings.Contains(s.Name, "_CBC_") {
			names = append(names, s.Name)
		}
	}
	return names
}

// addFlags adds the flags of o except those of generic, which come earlier in --help.
func (o *serving) addFlags(fss *cliflag.NamedFlagSets) {
	fs := fss.FlagSet("apiserver secure serving")
	o.SecureServing.AddFlags(fs)
	fs.StringVar(&o.ServingSecret, "serving-certificate-secret", o.ServingSecret,
		"The Secret, in the server's own namespace, with the serving certificate. The server creates and renews the "+
			"certificate and the CA that signs it, and writes the CA into the caBundle of the APIServices of "+
			o.group+", so that the API server can verify this server. Until the Secret can be read, a self-signed "+
			"certificate is served. Without this flag and --tls-cert-file, a pod uses the Secret "+
			o.name+kubeapi.ServingSecretSuffix+" if it exists and may be read; an empty name turns that off. "+
			"The namespace is that of the pod's service account, or POD_NAMESPACE in the environment.")
	o.servingSecretFlag = fs.Lookup("serving-certificate-secret")
	fs.Lookup("secure-port").Usage = "The port on which to serve HTTPS with authentication and authorization; not 0."
	fs.Lookup("disable-http2-serving").Usage = "Serve HTTP/1.1 only; with =false also HTTP/2, " +
		"which takes up to twice the CPU time for a list."
	fs.Lookup("tls-cipher-suites").Usage = "Comma-separated list of cipher suites for TLS 1.2; those of TLS 1.3 " +
		"cannot be chosen. Default: all with both forward secrecy and authenticated encryption."
	o.Authentication.AddFlags(fss.FlagSet("apiserver authentication"))
	o.Authorization.AddFlags(fss.FlagSet("apiserver authorization"))
	o.Audit.AddFlags(fss.FlagSet("apiserver audit log"))
	o.Features.AddFlags(fss.FlagSet("features"))
	logsapi.AddFlags(o.Logging, fss.FlagSet("logging"))
}

// defaultEmptyLists is Options.defaultEmptyLists for the flags of o.
func (o *serving) defaultEmptyLists() (flags []string) {
	if len(o.SecureServing.CipherSuites) == 0 {
		o.SecureServing.CipherSuites = modernCipherSuites()
		flags = append(flags, "tls-cipher-suites")
	}
	return flags
}

// checkReadable returns an error unless file, the value of a flag, is empty or a file.
func checkReadable(flag, file string) error {
	if file == "" {
		return nil
	}
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w: give the path of a file that this process can read", flag, err)
	case st.IsDir():
		return fmt.Errorf("%s: %q is a directory: give the path of a file", flag, file)
	}
	return nil
}

// validate returns every error in o, each with its remedy.
func (o *serving) validate() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.SecureServing.BindPort == 0 {
		bad("--secure-port: 0 would serve nothing: give the port that the Service and the probes use")
	}
	if err := checkReadable("--kubeconfig", o.Kubeconfig); err != nil {
		errs = append(errs, err)
	}
	if o.ServingSecret != "" {
		const secret = "--serving-certificate-secret"
		own := o.SecureServing.ServerCert.CertKey
		for flag, file := range map[string]string{"--tls-cert-file": own.CertFile, "--tls-private-key-file": own.KeyFile} {
			if file != "" {
				bad("%s and %s exclude each other: give one of them", secret, flag)
			}
		}
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
		o.generic.Validate(), o.SecureServing.Validate(), o.Authentication.Validate(), o.Authorization.Validate(),
		o.Audit.Validate(), o.Features.Validate(),
	} {
		errs = append(errs, group...)
	}
	for _, err := range logsapi.Validate(o.Logging, utilfeature.DefaultFeatureGate, nil) {
		bad("logging flags: %w", err)
	}
	return errs
}

// namespaceFile contains the namespace of a pod's service account, which is the pod's own.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// namespace returns the namespace that this server runs in, from the environment or else from file.
func namespace(file string) (string, error) {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the server's own namespace is unknown: %w: set POD_NAMESPACE in the environment, "+
			"or run in a pod with a service account", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// clientConfig returns the client configuration for the API server of a kubeconfig, or, if it is "", for
// the API server of the cluster that this process runs in.
func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := inClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = fmt.Errorf("no API server is configured: %w: give --kubeconfig, or run this in a pod", err)
		}
		return c, err
	}
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return c, nil
}

// inClusterConfig returns the client configuration of the service account of the pod that this process runs in. The
// error is rest.ErrNotInCluster if it runs in none.
func inClusterConfig() (*rest.Config, error) {
	c, err := rest.InClusterConfig()
	if err != nil && !errors.Is(err, rest.ErrNotInCluster) {
		err = fmt.Errorf("read the token of this pod's service account: %w: set automountServiceAccountToken: true in the "+
			"pod, or give --kubeconfig", err)
	}
	return c, err
}

// prepare waits until the API server answers, and sets the flags in generic. Without an error it returns nil if
// ctx ends before.
func (o *serving) prepare(ctx context.Context, generic *genericapiserver.Config) (*prepared, error) {
	heedMemoryLimit(ctx)
	restConfig, err := clientConfig(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	// The kubeconfigs for the delegated checks default to the one for everything else.
	for _, file := range []*string{&o.Authentication.RemoteKubeConfigFile, &o.Authorization.RemoteKubeConfigFile} {
		if *file == "" {
			*file = o.Kubeconfig
		}
	}
	// Determined first: a self-signed certificate looks as if --tls-cert-file had named it.
	secret, optional, err := o.servingSecret()
	if err != nil {
		return nil, err
	}
	loopback := []net.IP{net.IPv4(127, 0, 0, 1)}
	if err := o.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, loopback); err != nil {
		return nil, fmt.Errorf("make a self-signed serving certificate in --cert-dir %s: %w: give a directory that can be "+
			"written (an emptyDir at /tmp and --cert-dir=/tmp), or --tls-cert-file and --tls-private-key-file",
			o.SecureServing.ServerCert.CertDirectory, err)
	}
	authentication, err := o.awaitAPIServer(ctx)
	if err != nil || ctx.Err() != nil {
		return nil, err
	}
	if err := o.configure(generic, authentication); err != nil {
		return nil, err
	}
	return &prepared{rest: restConfig, secret: secret, optional: optional}, nil
}

// prepared is what a server needs of its flags besides the configuration of the generic API server.
type prepared struct {
	rest     *rest.Config
	secret   types.NamespacedName
	optional bool // the Secret is used if it exists
}

// logIdleFlags logs which of the given flags have no effect, and which feature gates were ignored.
func (o *serving) logIdleFlags(given *pflag.FlagSet, gates []string) {
	idle := map[string]string{}
	for name, reason := range idleRunFlags {
		if given.Changed(name) {
			idle["--"+name] = reason
		}
	}
	if o.Features.EnablePriorityAndFairness {
		idle["--enable-priority-and-fairness"] = "requests are limited by their number in flight"
	}
	if o.generic.GoawayChance > 0 && o.SecureServing.DisableHTTP2Serving {
		idle["--goaway-chance"] = "HTTP/2 is not served: see --disable-http2-serving"
	}
	if given.Changed("request-timeout") && o.generic.RequestTimeout == 0 {
		idle["--request-timeout=0"] = "no request could be answered: the default is used"
	}
	for _, name := range slices.Sorted(maps.Keys(idle)) {
		klog.InfoS("Warning: A flag has no effect", "flag", name, "reason", idle[name])
	}
	for _, gate := range gates {
		klog.InfoS("Warning: A feature gate is ignored", "gate", gate)
	}
}

// warnOfClosedProbes logs probes that depend on the API server.
func (o *serving) warnOfClosedProbes() {
	if closed := o.closedProbes(); len(closed) > 0 {
		klog.InfoS("Warning: --authorization-always-allow-paths leaves out paths that the kubelet's probes request "+
			"without credentials: the probes fail, and the container is restarted, whenever the API server does not "+
			"answer or does not let anonymous users read these paths",
			"missing", strings.Join(closed, ","), "remedy", "add the missing paths to the flag, or leave it out")
	}
}

// configure sets the flags in c. It sends no request to the API server.
func (o *serving) configure(c *genericapiserver.Config, authentication *lookup) error {
	o.generic.applyTo(c)
	port := o.SecureServing.BindPort
	if err := o.SecureServing.ApplyTo(&c.SecureServing, &c.LoopbackClientConfig); err != nil {
		return o.servingError(port, err)
	}
	o.Authentication.WithCustomRoundTripper(func(next http.RoundTripper) http.RoundTripper {
		if authentication != nil {
			next = lookedUp{authentication, next}
		}
		return unstreamed{next}
	})
	if err := o.Authentication.ApplyTo(&c.Authentication, c.SecureServing, c.OpenAPIConfig); err != nil {
		return fmt.Errorf("delegate authentication to the API server: %w", err)
	}
	if err := o.Authorization.ApplyTo(&c.Authorization); err != nil {
		return fmt.Errorf("delegate authorization to the API server: %w", err)
	}
	if err := o.Audit.ApplyTo(c); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	// Features.ApplyTo would also configure priority and fairness.
	c.EnableProfiling = o.Features.EnableProfiling
	c.EnableContentionProfiling = o.Features.EnableContentionProfiling
	c.DebugSocketPath = o.Features.DebugSocketPath
	return nil
}

// servingSecret returns the Secret with the serving certificate, if any. A pod without the flag and without
// certificate files uses the Secret of deploy/ if it exists: a patch with the whole args of another
// server's manifest loses the flag, and the API server would not trust a self-signed certificate.
func (o *serving) servingSecret() (secret types.NamespacedName, optional bool, err error) {
	if o.ServingSecret != "" {
		ns, err := namespace(namespaceFile)
		return types.NamespacedName{Namespace: ns, Name: o.ServingSecret}, false, err
	}
	own := o.SecureServing.ServerCert.CertKey
	if o.servingSecretFlag.Changed || own.CertFile != "" || own.KeyFile != "" {
		return types.NamespacedName{}, false, nil
	}
	ns, err := namespace(namespaceFile)
	if err != nil {
		return types.NamespacedName{}, false, nil //nolint:nilerr // outside a pod there is no Secret to find
	}
	return types.NamespacedName{Namespace: ns, Name: o.name + kubeapi.ServingSecretSuffix}, true, nil
}

// servingError adds the address and the remedy to err. The port is an argument because ApplyTo sets
// BindPort to 0 when it cannot listen.
func (o *serving) servingError(port int, err error) error {
	remedy := ""
	// ApplyTo does not wrap its errors. "bind" excludes a certificate file that may not be read.
	switch text := err.Error(); {
	case strings.Contains(text, "bind: "+syscall.EADDRINUSE.Error()):
		remedy = ": another program uses this port (on the host network, the kubelet uses 10250): give another one, " +
			"such as --secure-port=4443, and make containerPort and the Service's targetPort match"
	case strings.Contains(text, "bind: "+syscall.EACCES.Error()):
		remedy = ": a port below 1024, such as the default 443, requires root or the capability NET_BIND_SERVICE: " +
			"give --secure-port=10250, as in deploy/, and make containerPort and the Service's targetPort match"
	}
	return fmt.Errorf("serve on --bind-address %s --secure-port %d: %w%s", o.SecureServing.BindAddress, port, err, remedy)
}
