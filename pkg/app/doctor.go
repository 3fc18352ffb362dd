package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"

	"metrics-server/pkg/doctor"
)

const doctorLong = `Finds out why the cluster has no resource metrics, or would soon have none: it looks at the
APIServices, the Service, the pods and the rights of metrics-server, sends every kubelet the request
that the server sends, and compares what is served with what exists. Each finding comes with its
cause and its remedy. It changes nothing.

Exit code: 0 if there is no problem (there may be warnings, and things that could not be checked),
1 if there is one, 2 if nothing could be checked.`

const doctorExample = `  # From a terminal, with a kubeconfig
  metrics-server doctor

  # In the server's pod: with its network, its rights and its trust in kubelets
  kubectl -n kube-system exec deploy/metrics-server -- /metrics-server doctor`

// codeCannotRun is the exit code of a doctor that could check nothing.
const codeCannotRun = 2

// The values of --kubelets.
const (
	kubeletsAuto   = "auto"
	kubeletsDirect = doctor.Direct
	kubeletsProxy  = doctor.Proxy
)

// What --kubelets and --output can be.
var (
	kubeletsValues = []string{kubeletsAuto, kubeletsDirect, kubeletsProxy}
	outputValues   = []string{"text", "json"}
)

// doctorOptions are the flags of the doctor. Besides its own it has the kubelet flags of the server.
type doctorOptions struct {
	server    *Options
	client    clientOptions
	namespace string
	service   string
	kubelets  string
	output    string
	timeout   time.Duration
}

func newDoctorCommand(code *int) *cobra.Command {
	d := &doctorOptions{server: NewOptions()}
	// Errors that cobra itself finds have the same exit code.
	wrong := func(err error) error {
		if err != nil {
			*code = codeCannotRun
		}
		return err
	}
	cmd := &cobra.Command{
		Use:          "doctor",
		Short:        "Find out why there are no resource metrics",
		Long:         withExamples(doctorLong, doctorExample),
		Args:         func(cmd *cobra.Command, args []string) error { return wrong(cobra.NoArgs(cmd, args)) },
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return wrong(writeReport(cmd, code, d.output, func(ctx context.Context) (report, error) { return d.run(ctx, cmd) }))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrong(err) })
	cmd.AddCommand(newHPACommand(code, wrong))
	groups := d.flags()
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	for name, values := range map[string][]string{"kubelets": kubeletsValues, "output": outputValues} {
		complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		utilruntime.Must(cmd.RegisterFlagCompletionFunc(name, complete))
	}
	setHelp(cmd, groups)
	return cmd
}

// report is what a doctor finds.
type report interface {
	ExitCode() int
	WriteText(io.Writer) error
}

// writeReport runs a doctor, and writes its report and sets the exit code.
func writeReport(cmd *cobra.Command, code *int, output string, run func(context.Context) (report, error)) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := run(ctx)
	if err != nil {
		// If it were returned, it would be logged like an error of the server.
		*code = codeCannotRun
		fmt.Fprintf(cmd.ErrOrStderr(), "error: %v\n", err)
		return nil
	}
	*code = r.ExitCode()
	if output == "json" {
		return doctor.WriteJSON(cmd.OutOrStdout(), r)
	}
	return r.WriteText(cmd.OutOrStdout())
}

func (d *doctorOptions) flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("doctor")
	d.client.addFlags(fs)
	fs.StringVarP(&d.namespace, "namespace", "n", "",
		"The namespace of metrics-server, if its APIServices do not name it. "+
			"Default: the pod's namespace, or else kube-system.")
	fs.StringVar(&d.service, "service", "metrics-server",
		"The Service of metrics-server, if its APIServices do not name it.")
	fs.StringVar(&d.kubelets, "kubelets", kubeletsAuto,
		"How to reach kubelets. direct: as the server does, with a token of its --kubelet-service-account or, if that "+
			"cannot be had, the credentials of this command. proxy: through the API server. auto: direct in a pod, proxy with "+
			"a kubeconfig.")
	fs.StringVarP(&d.output, "output", "o", "text", "text or json.")
	fs.DurationVar(&d.timeout, "timeout", 2*time.Minute,
		"How long all checks together may take. Those that are not finished by then are reported as unknown.")
	d.server.kubeletFlags(&fss)
	return fss
}

// validateReport checks the flags that are about the report.
func validateReport(output string, timeout time.Duration) (errs []error) {
	if !slices.Contains(outputValues, output) {
		errs = append(errs, fmt.Errorf("--output: %q is unknown: give text or json", output))
	}
	if timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout: %v is not positive: give a positive duration", timeout))
	}
	return errs
}

func (d *doctorOptions) validate() error {
	errs := validateReport(d.output, d.timeout)
	if !slices.Contains(kubeletsValues, d.kubelets) {
		errs = append(errs, fmt.Errorf("--kubelets: %q is unknown: give auto, direct or proxy", d.kubelets))
	}
	return errors.Join(append(errs, d.server.Validate())...)
}

func (d *doctorOptions) run(ctx context.Context, cmd *cobra.Command) (*doctor.Report, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	config, inPod, err := d.client.clientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "metrics-server-doctor/" + buildVersion() // in the API server's audit log it is not the server
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	report, err := doctor.Run(ctx, d.config(cmd, config, inPod))
	return report, namingProxy(err, config)
}

// namingProxy adds to err the proxy through which requests to the API server of c go, if err is from a request that was
// sent and got no answer. If there was an answer, the proxy has let the request through.
func namingProxy(err error, c *rest.Config) error {
	if !doctor.NoAnswer(err) {
		return err
	}
	if proxy := proxyTo(c); proxy != "" {
		return fmt.Errorf("%w; %s", err, remedyProxy(proxy))
	}
	return err
}

// config returns what is examined, with flags given to cmd.
func (d *doctorOptions) config(cmd *cobra.Command, config *rest.Config, inPod bool) doctor.Config {
	return doctor.Config{
		Rest:      config,
		InPod:     inPod,
		Version:   buildVersion(),
		Direct:    d.kubelets == kubeletsDirect || d.kubelets == kubeletsAuto && inPod,
		Namespace: cmp.Or(d.namespace, podNamespace(inPod), "kube-system"),
		Service:   d.service,
		Flags: func(args []string) (doctor.Flags, error) {
			o, err := d.serverOptions(cmd, args)
			if err != nil {
				return doctor.Flags{}, err
			}
			return doctor.Flags{
				Kubelet:         o.kubeletConfig(config),
				NodeSelector:    o.NodeSelector,
				Resolution:      o.Resolution,
				Timeout:         o.requestTimeout(),
				Port:            o.SecureServing.BindPort,
				OpenPaths:       o.Authorization.AlwaysAllowPaths,
				RequestHeaderCA: o.Authentication.RequestHeader.ClientCAFile != "",
			}, nil
		},
	}
}

// clientOptions say which API server is asked, and with which credentials.
type clientOptions struct{ kubeconfig, context string }

func (o *clientOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.kubeconfig, "kubeconfig", "",
		"The kubeconfig file for the API server. Default: the pod's service account, or else $KUBECONFIG or ~/.kube/config.")
	fs.StringVar(&o.context, "context", "", "The kubeconfig's context. Default: its current one.")
}

// clientConfig returns the client configuration for the API server, and whether it is that of a pod's
// service account.
func (o *clientOptions) clientConfig() (config *rest.Config, inPod bool, err error) {
	if o.kubeconfig == "" && o.context == "" {
		config, err := inClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return config, err == nil, err
		}
	}
	config, err = o.loader().ClientConfig()
	if err != nil {
		return nil, false, fmt.Errorf("no API server is configured: %w: give --kubeconfig, or run this in a pod", err)
	}
	return config, false, nil
}

func (o *clientOptions) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: o.context})
}

// podNamespace returns the namespace of the pod that this process runs in, or "".
func podNamespace(inPod bool) string {
	if !inPod {
		return ""
	}
	ns, _ := namespace(namespaceFile) // if it is unknown, "" says so
	return ns
}

// kubeletFlagNames are the names of the flags that kubeletFlags adds.
var kubeletFlagNames = []string{
	"kubelet-insecure-tls", "kubelet-use-node-status-port", "kubelet-port", "kubelet-preferred-address-types",
	"kubelet-certificate-authority", "kubelet-certificate-authority-text", "kubelet-client-certificate",
	"kubelet-client-key", "kubelet-request-timeout", "kubelet-request-compression", "node-selector",
	"deprecated-kubelet-completely-insecure",
}

// serverOptions returns the options of a server with the arguments args. Flags given to the doctor itself
// take precedence. Unknown flags may be those of another release, and are ignored.
func (d *doctorOptions) serverOptions(cmd *cobra.Command, args []string) (*Options, error) {
	o := NewOptions()
	fs := serverFlagSet(o)
	fs.ParseErrorsAllowlist.UnknownFlags = true
	clean, _ := readArguments(serverFlagSet(NewOptions()), args)
	if err := fs.Parse(clean); err != nil {
		return nil, err
	}
	o.defaultEmptyLists()
	given := cmd.Flags()
	if given.Changed("kubelet-insecure-tls") || given.Changed("kubelet-certificate-authority") ||
		given.Changed("kubelet-certificate-authority-text") {
		o.KubeletInsecureTLS, o.KubeletCAFile, o.KubeletCAText = false, "", "" // they exclude one another
	}
	if given.Changed("kubelet-preferred-address-types") {
		o.KubeletAddressTypes = nil // Set adds to them
	}
	for _, name := range kubeletFlagNames {
		if !given.Changed(name) {
			continue
		}
		// The text of a list has brackets around it.
		if err := fs.Set(name, strings.Trim(given.Lookup(name).Value.String(), "[]")); err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
	}
	return o, nil
}
