package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	cliflag "k8s.io/component-base/cli/flag"

	"metrics-server/pkg/doctor/hpa"
)

const hpaLong = `Explains a HorizontalPodAutoscaler: its target and pods, the source and the current value of each
metric, the number of replicas that follows from them, and why the controller does or does not act.
It reads the pages of the pods through the API server, with your rights. Without a name, it prints one
line for each HorizontalPodAutoscaler in the cluster, or in the namespace given with -n. It changes
nothing.

Exit code: 0 if there is no problem (there may be warnings, and things that could not be checked),
1 if there is one, 2 if nothing could be checked.`

const hpaExample = `  # All HorizontalPodAutoscalers, with what is wrong
  metrics-server doctor hpa

  # Everything about one
  metrics-server doctor hpa default/php-apache`

// hpaOptions are the flags of doctor hpa.
type hpaOptions struct {
	client    clientOptions
	namespace string
	file      string
	output    string
	timeout   time.Duration
}

func (o *hpaOptions) flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("HPA")
	o.client.addFlags(fs)
	fs.StringVarP(&o.namespace, "namespace", "n", "",
		"The namespace. Default: all; for a NAME without a namespace, that of the kubeconfig or of the pod.")
	fs.StringVar(&o.file, "config", o.file,
		"A copy of the file that the custom metrics server has as --config, to explain the metrics that it names.")
	fs.StringVarP(&o.output, "output", "o", "text", "text or json.")
	fs.DurationVar(&o.timeout, "timeout", 2*time.Minute,
		"How long all checks together may take. Those that are not finished by then are reported as unknown.")
	return fss
}

// newHPACommand returns the command doctor hpa. wrong sets the exit code for an error.
func newHPACommand(code *int, wrong func(error) error) *cobra.Command {
	o := &hpaOptions{}
	cmd := &cobra.Command{
		Use:          "hpa [NAMESPACE/NAME]",
		Short:        "Explain HorizontalPodAutoscalers",
		Long:         withExamples(hpaLong, hpaExample),
		Args:         func(cmd *cobra.Command, args []string) error { return wrong(cobra.MaximumNArgs(1)(cmd, args)) },
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return wrong(writeReport(cmd, code, o.output, func(ctx context.Context) (report, error) { return o.run(ctx, args) }))
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrong(err) })
	groups := o.flags()
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	complete := cobra.FixedCompletions(outputValues, cobra.ShellCompDirectiveNoFileComp)
	utilruntime.Must(cmd.RegisterFlagCompletionFunc("output", complete))
	setHelp(cmd, groups)
	return cmd
}

func (o *hpaOptions) run(ctx context.Context, args []string) (*hpa.Report, error) {
	errs := validateReport(o.output, o.timeout)
	namespace, name := o.namespace, ""
	if len(args) > 0 {
		before, after, qualified := strings.Cut(args[0], "/")
		switch {
		case !qualified:
			name = before
		case before == "" || after == "" || strings.Contains(after, "/"):
			errs = append(errs, fmt.Errorf("%q is not a HorizontalPodAutoscaler: give NAMESPACE/NAME or NAME", args[0]))
		case namespace != "" && namespace != before:
			errs = append(errs, fmt.Errorf("%q is not in the namespace %q of --namespace: give only one of them", args[0],
				namespace))
		default:
			namespace, name = before, after
		}
		if args[0] == "" {
			errs = append(errs, errors.New("the name is empty: give NAMESPACE/NAME or NAME, or nothing for all"))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	config, inPod, err := o.client.clientConfig()
	if err != nil {
		return nil, err
	}
	if name != "" && namespace == "" {
		if namespace = podNamespace(inPod); !inPod {
			if namespace, _, err = o.client.loader().Namespace(); err != nil {
				return nil, fmt.Errorf("the kubeconfig's namespace: %w: give --namespace", err)
			}
		}
	}
	config.UserAgent = "metrics-server-doctor/" + buildVersion()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	report, err := hpa.Run(ctx, hpa.Config{
		Rest: config, Version: buildVersion(), Namespace: namespace, Name: name, File: o.file,
	})
	return report, namingProxy(err, config)
}
