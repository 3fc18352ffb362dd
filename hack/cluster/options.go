package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// options are what a cluster can be asked to be.
type options struct {
	Version           string // of Kubernetes; "" = the one that this module requires
	Nodes             int    // at the start
	AggregatorRouting bool   // the API server reaches an aggregated server at its endpoints, not at its service's address
	KubeletCerts      string // signedByCA or selfSigned
	KubeletHTTP2      string // "true", "false", or "" = as the kubelet has it by default

	given []string // the flags that were given: what was not asked for may be as it is in a cluster that runs
}

const (
	signedByCA = "ca"
	selfSigned = "self-signed"
	maxNodes   = 200 // each has an address and a network for pods by its number
)

// realOnly are the options that say nothing of simulated kubelets.
var realOnly = []string{"nodes", "aggregator-routing", "kubelet-certs", "kubelet-http2"}

func (o *options) addTo(flags *flag.FlagSet) {
	o.addVersionTo(flags)
	flags.IntVar(&o.Nodes, "nodes", 1, "number of nodes")
	flags.BoolVar(&o.AggregatorRouting, "aggregator-routing", true,
		"the API server reaches aggregated servers at their endpoints; false: at their service's address, by way of kube-proxy")
	flags.StringVar(&o.KubeletCerts, "kubelet-certs", signedByCA,
		"the kubelets' serving certificates: "+signedByCA+" (signed by the cluster's authority) or "+selfSigned)
	flags.BoolFunc("kubelet-http2", "whether the kubelets speak HTTP/2 (default: as that version's kubelet does)", func(s string) error {
		on, err := strconv.ParseBool(s)
		o.KubeletHTTP2 = strconv.FormatBool(on)
		return err
	})
}

func (o *options) addVersionTo(flags *flag.FlagSet) {
	flags.StringVar(&o.Version, "version", "", "version of Kubernetes, such as v1.36.3 (default: that of hack/cluster/go.mod)")
}

var versionForm = regexp.MustCompile(`^v1\.(\d+)\.\d+(-[a-z]+\.\d+)?$`)

// check completes the options after the flags were parsed.
func (o *options) check(flags *flag.FlagSet) error {
	o.given = nil
	flags.Visit(func(f *flag.Flag) {
		if f.Name == "version" || slices.Contains(realOnly, f.Name) {
			o.given = append(o.given, f.Name)
		}
	})
	var err error
	if o.Version != "" && !versionForm.MatchString(o.Version) {
		err = fmt.Errorf("-version %s: want the form v1.36.3", o.Version)
	}
	if slices.Contains(o.given, "nodes") && (o.Nodes < 1 || o.Nodes > maxNodes) {
		err = errors.Join(err, fmt.Errorf("-nodes %d: want 1 to %d", o.Nodes, maxNodes))
	}
	if slices.Contains(o.given, "kubelet-certs") && o.KubeletCerts != signedByCA && o.KubeletCerts != selfSigned {
		err = errors.Join(err, fmt.Errorf("-kubelet-certs %s: want %s or %s", o.KubeletCerts, signedByCA, selfSigned))
	}
	return err
}

// needReal names the given flags that only real kubelets can heed.
func (o *options) needReal() string {
	var names []string
	for _, name := range o.given {
		if slices.Contains(realOnly, name) {
			names = append(names, "-"+name)
		}
	}
	return strings.Join(names, ", ")
}

// unlike says which of the given flags the cluster that runs was not started with; nil if none.
func (o *options) unlike(runs record) error {
	has := map[string]string{
		"version": runs.Version, "nodes": strconv.Itoa(len(runs.Others) + 1),
		"aggregator-routing": strconv.FormatBool(runs.Layout.Options.AggregatorRouting),
		"kubelet-certs":      runs.Layout.Options.KubeletCerts, "kubelet-http2": runs.Layout.Options.KubeletHTTP2,
	}
	want := map[string]string{
		"version": o.Version, "nodes": strconv.Itoa(o.Nodes),
		"aggregator-routing": strconv.FormatBool(o.AggregatorRouting),
		"kubelet-certs":      o.KubeletCerts, "kubelet-http2": o.KubeletHTTP2,
	}
	for _, name := range o.given {
		if has[name] != want[name] {
			return fmt.Errorf("a cluster runs with -%s=%s, not %s; end it first: make cluster-down", name, has[name], want[name])
		}
	}
	return nil
}

// http2 is how a kubelet of version is made to speak HTTP/2 or not: feature gates for its configuration, in YAML, and
// variables for its environment.
func (o *options) http2(version string) (gates string, env []string) {
	switch o.KubeletHTTP2 {
	case "true":
		// Up to 1.35 kubelets always do. This gate, on since 1.36, brings a TLS configuration that does not offer HTTP/2.
		if minor(version) >= 36 {
			return "{ReloadKubeletClientCAFile: false}", nil
		}
	case "false":
		return "{}", []string{"GODEBUG=http2server=0"}
	}
	return "{}", nil
}

// minor is the minor version of Kubernetes' version, e.g. 37.
func minor(version string) int {
	found := versionForm.FindStringSubmatch(version)
	if found == nil {
		return 0
	}
	n, _ := strconv.Atoi(found[1])
	return n
}
