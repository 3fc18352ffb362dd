package app

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	cliflag "k8s.io/component-base/cli/flag"

	"metrics-server/pkg/ui"
)

const uiLong = `Shows the cluster in a browser on this machine: the usage of its nodes, pods and workloads, its
HorizontalPodAutoscalers and how they decide, and the findings of metrics-server doctor. It reads
the cluster with the rights of your kubeconfig and changes nothing. It works with any server of
metrics.k8s.io.

It prints a URL that lets in one browser, and serves the page until it is interrupted (Ctrl-C).

Exit code: 0 if it was interrupted, 2 if it could not run.`

const uiExample = `  # The cluster of the current context
  metrics-server ui

  # One namespace, if you may not read the others
  metrics-server ui -n shop

  # On a remote machine: forward the same port number, and open the URL that is printed
  ssh -t -L 8080:127.0.0.1:8080 HOST metrics-server ui --address=127.0.0.1:8080`

// uiOptions are the flags of ui.
type uiOptions struct {
	client    clientOptions
	namespace string
	address   string
	file      string
}

func (o *uiOptions) flags() (fss cliflag.NamedFlagSets) {
	fs := fss.FlagSet("UI")
	o.client.addFlags(fs)
	fs.StringVarP(&o.namespace, "namespace", "n", "",
		"Show only this namespace, without nodes, if you may not read the others. Default: all.")
	fs.StringVar(&o.address, "address", "127.0.0.1:0",
		"The loopback address and port to serve the page at; port 0 means any free port.")
	fs.StringVar(&o.file, "config", "",
		"A copy of the file that the custom metrics server has as --config, to explain the metrics that it names.")
	return fss
}

func newUICommand(code *int) *cobra.Command {
	o := &uiOptions{}
	wrong := func(err error) error {
		if err != nil {
			*code = codeCannotRun
		}
		return err
	}
	cmd := &cobra.Command{
		Use:          "ui",
		Short:        "Show the cluster in a browser on this machine",
		Long:         withExamples(uiLong, uiExample),
		Args:         func(cmd *cobra.Command, args []string) error { return wrong(cobra.NoArgs(cmd, args)) },
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := o.run(ctx, cmd); err != nil {
				// A returned error would be logged like one of the server.
				*code = codeCannotRun
				fmt.Fprintf(cmd.ErrOrStderr(), "error: %v\n", err)
			}
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrong(err) })
	groups := o.flags()
	for _, fs := range groups.FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	for _, name := range []string{"context", "namespace", "address"} {
		utilruntime.Must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	setHelp(cmd, groups)
	return cmd
}

// run serves the page until ctx ends.
func (o *uiOptions) run(ctx context.Context, cmd *cobra.Command) error {
	config, inPod, err := o.client.clientConfig()
	if err != nil {
		return err
	}
	config.UserAgent = "metrics-server-ui/" + buildVersion()
	name, err := o.client.name(inPod)
	if err != nil {
		return err
	}
	// As metrics-server doctor without flags, but always through the API server: no kubelet sees the user's credentials.
	d := &doctorOptions{server: NewOptions(), kubelets: kubeletsProxy, service: metricsServer}
	c := ui.Config{
		Rest: config, Address: o.address, Namespace: o.namespace, Version: buildVersion(), Context: name, File: o.file,
		Doctor: d.config(cmd, config, inPod),
	}
	if proxy := proxyTo(config); proxy != "" {
		c.Hint = remedyProxy(proxy)
	}
	saveMemory(uiGarbage)
	s, err := ui.New(c)
	if err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), s.URL())
	fmt.Fprintln(cmd.ErrOrStderr(), "Open this URL in a browser on this machine. It works once. Press Ctrl-C to stop.")
	return s.Run(ctx)
}

// name returns the name of the context in use, or "in the pod".
func (o *clientOptions) name(inPod bool) (string, error) {
	if inPod {
		return "in the pod", nil
	}
	raw, err := o.loader().RawConfig()
	if err != nil {
		return "", fmt.Errorf("read the kubeconfig: %w: give another one with --kubeconfig", err)
	}
	return cmp.Or(o.context, raw.CurrentContext), nil
}
