package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cliflag "k8s.io/component-base/cli/flag"

	"metrics-server/pkg/doctor"
)

const doctorLong = `Finds out why the cluster has no resource metrics, or would soon have none: it looks at the
APIServices, the Service, the pods and the rights of metrics-server, asks every kubelet what the
server asks it, and compares what is served with what there is. Each finding comes with its
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

// doctorOptions are the flags of the doctor, beside those of the server that say how kubelets are asked.
type doctorOptions struct {
	server     *Options
	kubeconfig string
	context    string
	namespace  string
	service    string
	kubelets   string
	output     string
	timeout    time.Duration
}

func newDoctorCommand(code *int) *cobra.Command {
	d := &doctorOptions{server: NewOptions()}
	// What cobra itself finds wrong is an error of the call, too.
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
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			report, err := d.run(ctx, cmd)
			if err != nil {
				// Not returned: it would be logged, as an error of the server is.
				*code = codeCannotRun
				fmt.Fprintf(cmd.ErrOrStderr(), "error: %v\n", err)
				return nil
			}
			*code = report.ExitCode()
			write := report.WriteText
			if d.output == "json" {
				write = report.WriteJSON
			}
			return wrong(write(cmd.OutOrStdout()))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrong(err) })
	groups := d.flags()
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	for name, values := range map[string][]string{"kubelets": kubeletsValues, "output": outputValues} {
		utilruntime.Must(cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	setHelp(cmd, groups)
	return cmd
}

func (d *doctorOptions) flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("doctor")
	fs.StringVar(&d.kubeconfig, "kubeconfig", "", "The kubeconfig file for the API server. Default: the pod's service account, or else $KUBECONFIG or ~/.kube/config.")
	fs.StringVar(&d.context, "context", "", "The kubeconfig's context. Default: its current one.")
	fs.StringVarP(&d.namespace, "namespace", "n", "", "Where metrics-server is, if its APIServices do not say it. Default: the pod's namespace, or else kube-system.")
	fs.StringVar(&d.service, "service", "metrics-server", "The Service of metrics-server, if its APIServices do not say it.")
	fs.StringVar(&d.kubelets, "kubelets", kubeletsAuto, "How kubelets are asked: direct is as the server does, with these credentials; proxy is through the API server; auto is direct in a pod and proxy with a kubeconfig.")
	fs.StringVarP(&d.output, "output", "o", "text", "text or json.")
	fs.DurationVar(&d.timeout, "timeout", 2*time.Minute, "How long all of it may take. What was not reached by then is unknown.")
	d.server.kubeletFlags(&fss)
	return fss
}

func (d *doctorOptions) validate() error {
	var errs []error
	if !slices.Contains(outputValues, d.output) {
		errs = append(errs, fmt.Errorf("--output: %q is unknown: give text or json", d.output))
	}
	if !slices.Contains(kubeletsValues, d.kubelets) {
		errs = append(errs, fmt.Errorf("--kubelets: %q is unknown: give auto, direct or proxy", d.kubelets))
	}
	if d.timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout: %v is no time: give a positive duration", d.timeout))
	}
	return errors.Join(append(errs, d.server.Validate())...)
}

func (d *doctorOptions) run(ctx context.Context, cmd *cobra.Command) (*doctor.Report, error) {
	if err := d.validate(); err != nil {
		return nil, err
	}
	config, inPod, err := d.clientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "metrics-server-doctor/" + buildVersion() // in the API server's audit log it is not the server
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	report, err := doctor.Run(ctx, doctor.Config{
		Rest:      config,
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
				RequestHeaderCA: o.Authentication.RequestHeader.ClientCAFile != "",
			}, nil
		},
	})
	if proxy := proxyTo(config); err != nil && proxy != "" {
		err = fmt.Errorf("%w; %s", err, remedyProxy(proxy))
	}
	return report, err
}

// clientConfig is how the API server is reached, and whether by a pod's service account.
func (d *doctorOptions) clientConfig() (config *rest.Config, inPod bool, err error) {
	if d.kubeconfig == "" && d.context == "" {
		config, err := rest.InClusterConfig()
		if err == nil {
			return config, true, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, false, fmt.Errorf("this pod's service account: %w: give --kubeconfig", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = d.kubeconfig
	config, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: d.context}).ClientConfig()
	if err != nil {
		return nil, false, fmt.Errorf("no API server to ask: %w: give --kubeconfig, or run this in a pod", err)
	}
	return config, false, nil
}

// podNamespace is that of the pod in which this runs, "" outside of one.
func podNamespace(inPod bool) string {
	if !inPod {
		return ""
	}
	ns, _ := namespace(namespaceFile) // if it is unknown, "" says so
	return ns
}

// kubeletFlagNames are those of kubeletFlags.
var kubeletFlagNames = []string{
	"kubelet-insecure-tls", "kubelet-use-node-status-port", "kubelet-port", "kubelet-preferred-address-types",
	"kubelet-certificate-authority", "kubelet-certificate-authority-text", "kubelet-client-certificate", "kubelet-client-key",
	"kubelet-request-timeout", "kubelet-request-compression", "node-selector", "deprecated-kubelet-completely-insecure",
}

// serverOptions are those of a server with the arguments args. What was given to the doctor itself has precedence. A flag that this
// release does not know is another release's, and passed over.
func (d *doctorOptions) serverOptions(cmd *cobra.Command, args []string) (*Options, error) {
	o := NewOptions()
	fs := new(cobra.Command).Flags()
	fs.ParseErrorsAllowlist.UnknownFlags = true
	groups := o.Flags()
	for _, g := range groups.FlagSets {
		fs.AddFlagSet(g)
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	given := cmd.Flags()
	if given.Changed("kubelet-insecure-tls") || given.Changed("kubelet-certificate-authority") || given.Changed("kubelet-certificate-authority-text") {
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
