// Package app is the command line of metrics-server: flags, their validation, and the step from
// flags to a running server. Nothing here outlives the command.
package app

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register" // --logging-format=json
	"k8s.io/component-base/term"
	"k8s.io/klog/v2"

	"metrics-server/pkg/server"
)

const long = `Serves the resource metrics API (metrics.k8s.io) of a Kubernetes cluster: the current CPU and
memory usage of its nodes and pods, as kubectl top, the HorizontalPodAutoscaler, the
VerticalPodAutoscaler and dashboards read it. It asks every kubelet for its samples a little
more often than the metric resolution and keeps the newest of them in memory.`

const example = `  # In a pod, with its service account, as deploy/ has it
  metrics-server --cert-dir=/tmp --secure-port=10250 \
    --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname --kubelet-use-node-status-port \
    --metric-resolution=15s --serving-certificate-secret=metrics-server-serving

  # From a terminal, against the cluster of a kubeconfig, on a local port
  metrics-server --kubeconfig=$HOME/.kube/config --secure-port=4430 --cert-dir=/tmp/metrics-server

  # Find out why there are no metrics
  metrics-server doctor

  # Complete flags in this shell
  source <(metrics-server completion bash)`

// Run is the command as this process was called. It returns the exit code.
func Run() int {
	var code int
	failed := cli.Run(newCommand(&code))
	return max(failed, code)
}

// withExamples is the head of --help. What prints flags by their groups leaves out a command's examples.
func withExamples(long, example string) string { return long + "\n\nExamples:\n\n" + example }

// NewCommand returns the metrics-server command.
func NewCommand() *cobra.Command { return newCommand(new(int)) }

// newCommand is NewCommand that writes an exit code which an error alone does not tell to code.
func newCommand(code *int) *cobra.Command {
	o := NewOptions()
	cmd := &cobra.Command{
		Use:   "metrics-server",
		Short: "Serve the resource metrics API of a Kubernetes cluster",
		Long:  withExamples(long, example),
		Args:  cobra.NoArgs,
		// An error of the flags or of the run is no reason to print all flags.
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.ShowVersion {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
				return err
			}
			if err := o.Validate(); err != nil {
				return err
			}
			if err := applyLogging(o.Logging); err != nil {
				return err
			}
			return o.run(genericapiserver.SetupSignalContext())
		},
	}
	groups := o.Flags()
	globalflag.AddGlobalFlags(groups.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	setHelp(cmd, groups)
	cmd.AddCommand(newDoctorCommand(code))
	return cmd
}

// setHelp makes the help and the usage of cmd list its commands, and its flags by their groups.
func setHelp(cmd *cobra.Command, groups cliflag.NamedFlagSets) {
	cols, _, _ := term.TerminalSize(cmd.OutOrStdout())
	write := func(w io.Writer) {
		fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
		printCommands(w, cmd)
		cliflag.PrintSections(w, groups, cols)
	}
	// Commands without help of their own, as cobra's completion is, inherit this one's, and have none of its flags.
	usage, help := cmd.UsageFunc(), cmd.HelpFunc()
	cmd.SetUsageFunc(func(c *cobra.Command) error {
		if c != cmd {
			return usage(c)
		}
		write(c.OutOrStderr())
		return nil
	})
	cmd.SetHelpFunc(func(c *cobra.Command, args []string) {
		if c != cmd {
			help(c, args)
			return
		}
		fmt.Fprintf(c.OutOrStdout(), "%s\n\n", c.Long)
		write(c.OutOrStdout())
	})
}

// printCommands lists the commands that cmd has, if any.
func printCommands(w io.Writer, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	fmt.Fprintf(w, "  %s COMMAND\n\nCommands (each has a --help):\n\n", cmd.CommandPath())
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(w, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
		}
	}
}

// run serves until ctx ends.
func (o *Options) run(ctx context.Context) error {
	klog.InfoS("starting metrics-server", "version", buildVersion(), "resolution", o.Resolution, "kubeletRequestTimeout", o.requestTimeout())
	if o.Resolution < kubeletSamplingPeriod {
		klog.InfoS("warning: kubelets take a sample every 10 to 20 seconds, so a shorter --metric-resolution mostly asks for the same sample again",
			"resolution", o.Resolution)
	}
	if period := server.ScrapePeriod(o.Resolution); o.requestTimeout() >= period {
		klog.InfoS("warning: a kubelet that takes as long as --kubelet-request-timeout allows misses its turns: kubelets are asked every four fifths of --metric-resolution",
			"kubeletRequestTimeout", o.requestTimeout(), "period", period)
	}
	if o.KubeletPlainHTTP {
		klog.InfoS("warning: --deprecated-kubelet-completely-insecure is deprecated: the numbers of the kubelets are neither encrypted nor authenticated, and most kubelets do not answer plain HTTP; use --kubelet-certificate-authority, or --kubelet-insecure-tls on a test cluster")
	}
	if o.Features.EnablePriorityAndFairness {
		klog.InfoS("warning: --enable-priority-and-fairness has no effect here: requests are limited by their number in flight")
	}
	heedMemoryLimit(ctx)
	saving := saveMemory()
	restConfig, err := clientConfig(o.Kubeconfig)
	if err != nil {
		return err
	}
	// The kubeconfigs for the delegated checks default to the one for everything else.
	for _, file := range []*string{&o.Authentication.RemoteKubeConfigFile, &o.Authorization.RemoteKubeConfigFile} {
		if *file == "" {
			*file = o.Kubeconfig
		}
	}
	if err := o.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return fmt.Errorf("make a self-signed serving certificate in --cert-dir %s: %w: give a directory that can be written (an emptyDir at /tmp and --cert-dir=/tmp), or --tls-cert-file and --tls-private-key-file",
			o.SecureServing.ServerCert.CertDirectory, err)
	}
	if err := o.awaitAPIServer(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	generic, err := o.genericConfig()
	if err != nil {
		return err
	}
	secret, err := o.servingSecret()
	if err != nil {
		return err
	}
	started := make(chan struct{})
	s, err := server.New(server.Config{
		Generic:        generic,
		Rest:           restConfig,
		Resolution:     o.Resolution,
		Timeout:        o.requestTimeout(),
		NodeSelector:   o.NodeSelector,
		NodeEvents:     o.NodeEvents,
		Kubelet:        o.kubeletConfig(restConfig),
		ServingSecret:  secret,
		OnFirstScrapes: func() { close(started) },
	})
	if err != nil {
		return err
	}
	if saving {
		go spendMemory(ctx, started)
	}
	return s.Run(ctx)
}

// clientConfig is how the API server of a kubeconfig is reached, or that of the cluster in which this runs.
func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("no --kubeconfig given, and this is not a pod of a cluster: %w", err)
		}
		return c, nil
	}
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	return c, nil
}

// genericConfig makes the configuration of the generic API server. It asks the API server how requests are authenticated.
func (o *Options) genericConfig() (*genericapiserver.Config, error) {
	c := server.NewGenericConfig(buildVersion())
	port := o.SecureServing.BindPort
	if err := o.SecureServing.ApplyTo(&c.SecureServing, &c.LoopbackClientConfig); err != nil {
		return nil, o.servingError(port, err)
	}
	if err := o.Authentication.ApplyTo(&c.Authentication, c.SecureServing, c.OpenAPIConfig); err != nil {
		return nil, fmt.Errorf("delegate authentication to the API server: %w: check that it can be reached, and that the RoleBinding metrics-server-auth-reader in kube-system is there", err)
	}
	if err := o.Authorization.ApplyTo(&c.Authorization); err != nil {
		return nil, fmt.Errorf("delegate authorization to the API server: %w", err)
	}
	if err := o.Audit.ApplyTo(c); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	// Not Features.ApplyTo: of the three it knows, priority and fairness is not wanted here.
	c.EnableProfiling = o.Features.EnableProfiling
	c.EnableContentionProfiling = o.Features.EnableContentionProfiling
	c.DebugSocketPath = o.Features.DebugSocketPath
	return c, nil
}

// servingSecret is the Secret with the serving certificate, if there is to be one.
func (o *Options) servingSecret() (types.NamespacedName, error) {
	if o.ServingSecret == "" {
		return types.NamespacedName{}, nil
	}
	ns, err := namespace(namespaceFile)
	return types.NamespacedName{Namespace: ns, Name: o.ServingSecret}, err
}

// servingError is err with where it was to be served and what can be done. The port is an argument because ApplyTo makes
// BindPort 0 when it cannot listen.
func (o *Options) servingError(port int, err error) error {
	remedy := ""
	// ApplyTo does not wrap what it was told. Without "bind", a certificate that may not be read would be taken for a port.
	switch text := err.Error(); {
	case strings.Contains(text, "bind: "+syscall.EADDRINUSE.Error()):
		remedy = ": another program has this port (on the host network, the kubelet has 10250): give another one, such as --secure-port=4443, and make containerPort and the Service's targetPort match"
	case strings.Contains(text, "bind: "+syscall.EACCES.Error()):
		remedy = ": a port below 1024, such as the default 443, takes root or the capability NET_BIND_SERVICE: give --secure-port=10250, as deploy/ has it, and make containerPort and the Service's targetPort match"
	}
	return fmt.Errorf("serve on --bind-address %s --secure-port %d: %w%s", o.SecureServing.BindAddress, port, err, remedy)
}

func (o *Options) kubeletConfig(restConfig *rest.Config) server.KubeletConfig {
	return server.KubeletConfig{
		Rest:              restConfig,
		Insecure:          o.KubeletInsecureTLS,
		PlainHTTP:         o.KubeletPlainHTTP,
		UseNodeStatusPort: o.KubeletUseNodeStatusPort,
		Port:              o.KubeletPort,
		AddressTypes:      o.KubeletAddressTypes,
		CAFile:            o.KubeletCAFile,
		CAData:            []byte(o.KubeletCAText),
		ClientCertFile:    o.KubeletClientCertificate,
		ClientKeyFile:     o.KubeletClientKey,
		Compress:          o.KubeletRequestCompression,
	}
}
