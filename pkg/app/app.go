// Package app is the command line of metrics-server: it defines and validates the flags, and starts the
// server that they describe. It has no state beyond that of the command.
package app

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/rest"
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
    --metric-resolution=15s --serving-certificate-secret=metrics-server-serving \
    --kubelet-service-account=metrics-server-kubelets

  # From a terminal, against the cluster of a kubeconfig, on a local port
  metrics-server --kubeconfig=$HOME/.kube/config --secure-port=4430 --cert-dir=/tmp/metrics-server

  # Find out why there are no metrics
  metrics-server doctor

  # See the cluster in a browser
  metrics-server ui

  # Complete flags in this shell
  source <(metrics-server completion bash)`

// Run executes the command with the arguments of this process. It returns the exit code.
func Run() int {
	var code int
	failed := cli.Run(newCommand(&code, os.Args[1:]))
	return max(failed, code)
}

// withExamples returns the first part of --help. The help that groups flags omits a command's examples.
func withExamples(long, example string) string { return long + "\n\nExamples:\n\n" + example }

// NewCommand returns the metrics-server command with its arguments.
func NewCommand(args ...string) *cobra.Command { return newCommand(new(int), args) }

// newCommand is NewCommand, and sets code if the exit code does not follow from the error.
func newCommand(code *int, args []string) *cobra.Command {
	o := NewOptions()
	var (
		odds      []odd
		argsError error
	)
	cmd := &cobra.Command{
		Use:   "metrics-server",
		Short: "Serve the resource metrics API of a Kubernetes cluster",
		Long:  withExamples(long, example),
		Args:  func(*cobra.Command, []string) error { return argsError },
		// An error in a flag or while running should not print all flags.
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.ShowVersion {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
				return err
			}
			gates := o.generic.setGates(utilfeature.DefaultMutableFeatureGate)
			empty := o.defaultEmptyLists()
			if err := o.Validate(); err != nil {
				return err
			}
			if err := applyLogging(o.Logging); err != nil {
				return err
			}
			logOddArguments(odds, empty)
			o.logIdleFlags(cmd.Flags(), gates)
			o.warnOfAddressTypes()
			return o.run(genericapiserver.SetupSignalContext())
		},
	}
	groups := o.Flags()
	globalflag.AddGlobalFlags(groups.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	setHelp(cmd, groups)
	cmd.SetFlagErrorFunc(flagError)
	cmd.AddCommand(newDoctorCommand(code), newCustomCommand(code), newUICommand(code))
	cmd.InitDefaultHelpCmd()
	cmd.InitDefaultCompletionCmd(args...)
	var clean []string
	clean, odds, argsError = commandLine(cmd, args)
	cmd.SetArgs(clean)
	return cmd
}

// logOddArguments logs the arguments that were not taken literally, with how they were read, and
// the flags with empty lists.
func logOddArguments(odds []odd, empty []string) {
	for _, a := range odds {
		if a.readAs == "" {
			klog.InfoS("Warning: An argument is ignored", "argument", a.argument, "reason", a.reason)
		} else {
			klog.InfoS("Warning: An argument is malformed: correct it", "argument", a.argument, "readAs", a.readAs)
		}
	}
	for _, name := range empty {
		klog.InfoS("Warning: A flag has an empty list, so its default is used", "flag", "--"+name)
	}
}

// warnOfAddressTypes logs the given address types that Kubernetes does not define.
func (o *Options) warnOfAddressTypes() {
	for _, t := range o.KubeletAddressTypes {
		if !slices.Contains(addressTypes, t) {
			klog.InfoS("Warning: Kubernetes defines no node address of this type: use the types that it defines",
				"flag", "--"+addressTypesFlag, "type", t, "types", addressTypes)
		}
	}
}

// setHelp makes the help and the usage of cmd list its commands, and its flags by group.
func setHelp(cmd *cobra.Command, groups cliflag.NamedFlagSets) {
	cols, _, _ := term.TerminalSize(cmd.OutOrStdout())
	write := func(w io.Writer) {
		fmt.Fprintf(w, "Usage:\n  %s\n", cmd.UseLine())
		printCommands(w, cmd)
		cliflag.PrintSections(w, groups, cols)
	}
	// Commands without help of their own, such as cobra's completion, inherit this help but not the flags.
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
	klog.InfoS("Starting metrics-server",
		"version", buildVersion(), "resolution", o.Resolution, "window", cmp.Or(o.Window, o.Resolution),
		"kubeletRequestTimeout", o.requestTimeout())
	if o.Resolution < kubeletSamplingPeriod {
		klog.InfoS("Warning: Kubelets take a sample every 10 to 20 seconds, so a shorter --metric-resolution mostly "+
			"fetches the same sample again", "resolution", o.Resolution)
	}
	if period := server.ScrapePeriod(o.Resolution); o.requestTimeout() >= period {
		klog.InfoS("Warning: --kubelet-request-timeout is not shorter than the scrape period, which is four fifths of "+
			"--metric-resolution, so slow kubelets miss scrapes: give a shorter timeout",
			"kubeletRequestTimeout", o.requestTimeout(), "period", period)
	}
	if o.KubeletPlainHTTP {
		klog.InfoS("Warning: --deprecated-kubelet-completely-insecure is deprecated: the responses of the kubelets are " +
			"neither encrypted nor authenticated, and most kubelets do not serve plain HTTP; use " +
			"--kubelet-certificate-authority, or --kubelet-insecure-tls on a test cluster")
	}
	o.warnOfClosedProbes()
	saveMemory(garbage)
	generic := server.NewGenericConfig(buildVersion())
	p, err := o.prepare(ctx, generic)
	if err != nil || p == nil {
		return err
	}
	account, err := o.kubeletAccount()
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{
		Generic:        generic,
		Rest:           p.rest,
		Resolution:     o.Resolution,
		Window:         o.Window,
		Timeout:        o.requestTimeout(),
		NodeSelector:   o.NodeSelector,
		NodeEvents:     o.NodeEvents,
		History:        o.History,
		Kubelet:        o.kubeletConfig(p.rest),
		KubeletAccount: account,
		ServingSecret:  p.secret,

		ServingSecretOptional: p.optional,
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// kubeletAccount returns the service account whose tokens are sent to kubelets, if any.
func (o *Options) kubeletAccount() (types.NamespacedName, error) {
	if o.KubeletServiceAccount == "" || o.KubeletClientCertificate != "" || o.KubeletPlainHTTP {
		return types.NamespacedName{}, nil
	}
	ns, err := namespace(namespaceFile)
	return types.NamespacedName{Namespace: ns, Name: o.KubeletServiceAccount}, err
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
