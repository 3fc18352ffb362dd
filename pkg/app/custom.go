package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/cli/globalflag"
	"k8s.io/component-base/logs"
	"k8s.io/klog/v2"

	"metrics-server/pkg/customserver"
	"metrics-server/pkg/kubeapi"
)

const customLong = `Serves the custom metrics API for HorizontalPodAutoscalers (metrics of types Pods and Object),
and with --external-metrics also the external metrics API (type External). It reads the
HorizontalPodAutoscalers, scrapes only the pods that they need, and answers from memory. Neither
Prometheus nor an adapter is needed.`

const customExample = `  # In a pod, with its service account, as deploy/ has it
  metrics-server custom-metrics --cert-dir=/tmp --secure-port=10250 \
    --serving-certificate-secret=custom-metrics-server-serving

  # What a HorizontalPodAutoscaler sees of the metric http_requests_total of the pods with app=web
  kubectl get --raw \
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests_total?labelSelector=app%3Dweb"`

const (
	// defaultMaxPods is how many pods a metric may have.
	defaultMaxPods = 2000
	// defaultPermittedFor is how long a permission is remembered. The HPA controller asks for each metric every 15 s,
	// so with the 10 s of other API servers, each of its requests would cost another one to the API server.
	defaultPermittedFor = 5 * time.Minute
)

// customOptions are the flags of the command custom-metrics.
type customOptions struct {
	serving
	maxPods  int
	external bool
	file     string
	check    string
}

func newCustomOptions() *customOptions {
	o := &customOptions{
		serving: newServing("custom-metrics-server", kubeapi.CustomMetricsGroup+" (with --external-metrics, of "+
			kubeapi.ExternalMetricsGroup+" too)"),
		maxPods: defaultMaxPods,
	}
	o.Authorization.AllowCacheTTL = defaultPermittedFor
	return o
}

func (o *customOptions) flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("custom metrics")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", o.Kubeconfig,
		"The kubeconfig file for the API server. Default: the pod's service account.")
	fs.IntVar(&o.maxPods, "max-pods-per-metric", o.maxPods,
		"The largest number of pods of one metric of one HorizontalPodAutoscaler. A metric with more pods is reported as "+
			"an error.")
	fs.BoolVar(&o.external, "external-metrics", o.external,
		"Serve "+kubeapi.ExternalMetricsGroup+", too: metrics of type External of HorizontalPodAutoscalers. The annotation "+
			kubeapi.TargetsAnnotation+" names the Service whose pods expose them. Other programs, such as KEDA, also "+
			"serve this API: the server leaves the APIService of another program alone.")
	fs.StringVar(&o.file, "config", o.file,
		"The administrator's file. It names backends: servers with the Prometheus API (Prometheus, Thanos, Mimir, "+
			"VictoriaMetrics) whose metrics HorizontalPodAutoscalers can use, selected by the annotation "+
			kubeapi.BackendAnnotation+" or by default; and metrics of Ingresses, HTTPRoutes and Services in all namespaces. "+
			"The file is read again every 10 s; after the start, a version with a mistake is ignored. Default: there are no "+
			"backends, and all metrics come from pods.")
	fs.StringVar(&o.check, "check-config", o.check,
		"Check a file for --config, and the configuration of prometheus-adapter that it may name, and exit; the exit code "+
			"is 1 if there is a mistake. Rules of prometheus-adapter that cannot be used are listed, but are not mistakes. No "+
			"backend is contacted, and no file with credentials is read.")
	fs.BoolVar(&o.ShowVersion, "version", o.ShowVersion, "Print the version and exit.")
	o.generic.addFlags(fss.FlagSet("generic"))
	o.serving.addFlags(&fss)
	return fss
}

func (o *customOptions) validate() error {
	errs := o.serving.validate()
	if o.maxPods < 1 {
		errs = append(errs, fmt.Errorf("--max-pods-per-metric: %d would leave no pods: give at least 1", o.maxPods))
	}
	return errors.Join(errs...)
}

// newCustomCommand returns the command custom-metrics. It sets code if the exit code does not follow from the error.
func newCustomCommand(code *int) *cobra.Command {
	o := newCustomOptions()
	cmd := &cobra.Command{
		Use:          "custom-metrics",
		Short:        "Serve custom and external metrics from the metrics of pods",
		Long:         withExamples(customLong, customExample),
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.ShowVersion {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
				return err
			}
			if o.check != "" {
				if err := checkFile(cmd.OutOrStdout(), o.check); err != nil {
					*code = 1
					_, err = fmt.Fprintln(cmd.ErrOrStderr(), err) // a line for each mistake, not a message of the log
					return err
				}
				return nil
			}
			gates := o.generic.setGates(utilfeature.DefaultMutableFeatureGate)
			empty := o.defaultEmptyLists()
			if err := o.validate(); err != nil {
				return err
			}
			if err := applyLogging(o.Logging); err != nil {
				return err
			}
			logOddArguments(nil, empty)
			o.logIdleFlags(cmd.Flags(), gates)
			return o.run(genericapiserver.SetupSignalContext())
		},
	}
	groups := o.flags()
	globalflag.AddGlobalFlags(groups.FlagSet("global"), cmd.Name(), logs.SkipLoggingConfigurationFlags())
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	setHelp(cmd, groups)
	return cmd
}

// checkFile checks a file for --config, and writes what it names. The error has every mistake.
func checkFile(w io.Writer, file string) error {
	c, err := customserver.CheckFile(file)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s is valid; it names %d backends and %d metrics\n", file, c.Backends, c.Metrics)
	for _, problem := range c.NotServed {
		fmt.Fprintf(&text, "not served: the configuration of prometheus-adapter, %v\n", problem)
	}
	for _, problem := range c.Warnings {
		fmt.Fprintf(&text, "warning: the configuration of prometheus-adapter, %v\n", problem)
	}
	if c.LeftOutRules > 0 {
		fmt.Fprintf(&text, "rules of prometheus-adapter that are left out: %d; metrics that only they define have no value, "+
			"or another meaning\n", c.LeftOutRules)
	}
	_, err = io.WriteString(w, text.String())
	return err
}

// run serves until ctx ends.
func (o *customOptions) run(ctx context.Context) error {
	klog.InfoS("Starting metrics-server custom-metrics", "version", buildVersion())
	o.warnOfClosedProbes()
	saveMemory(customGarbage)
	generic := customserver.NewGenericConfig(buildVersion(), o.external)
	p, err := o.prepare(ctx, generic)
	if err != nil || p == nil {
		return err
	}
	s, err := customserver.New(customserver.Config{
		Generic:       generic,
		Rest:          p.rest,
		MaxPods:       o.maxPods,
		External:      o.external,
		File:          o.file,
		ServingSecret: p.secret,

		ServingSecretOptional: p.optional,
	})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}
