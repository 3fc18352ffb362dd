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

// options are the properties of a cluster that flags select.
type options struct {
	Version           string // of Kubernetes; "" = the one that this module requires
	Nodes             int    // at the start
	AggregatorRouting bool   // the API server reaches an aggregated server at its endpoints, not at its service's address
	KubeletCerts      string // signedByCA or selfSigned

	given []string // the flags that were given: all other properties may be as they are in a running cluster
}

const (
	signedByCA = "ca"
	selfSigned = "self-signed"
	maxNodes   = 200 // each has an address and a network for pods by its number
)

// realOnly lists the flags that do not apply to simulated kubelets.
var realOnly = []string{"nodes", "aggregator-routing", "kubelet-certs"}

func (o *options) addTo(flags *flag.FlagSet) {
	o.addVersionTo(flags)
	flags.IntVar(&o.Nodes, "nodes", 1, "number of nodes")
	flags.BoolVar(&o.AggregatorRouting, "aggregator-routing", true,
		"the API server reaches aggregated servers at their endpoints; false: at their service's address, by way of "+
			"kube-proxy")
	flags.StringVar(&o.KubeletCerts, "kubelet-certs", signedByCA,
		"the kubelets' serving certificates: "+signedByCA+" (signed by the cluster's authority) or "+selfSigned)
}

func (o *options) addVersionTo(flags *flag.FlagSet) {
	flags.StringVar(&o.Version, "version", "", "version of Kubernetes, such as v1.36.3 (default: that of "+
		"hack/cluster/go.mod)")
}

var versionForm = regexp.MustCompile(`^v1\.\d+\.\d+(-[a-z]+\.\d+)?$`)

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

// needReal lists the given flags that require real kubelets.
func (o *options) needReal() string {
	var names []string
	for _, name := range o.given {
		if slices.Contains(realOnly, name) {
			names = append(names, "-"+name)
		}
	}
	return strings.Join(names, ", ")
}

// unlike returns the given flags that do not match the running cluster; nil if there are none.
func (o *options) unlike(runs record) error {
	has := map[string]string{
		"version": runs.Version, "nodes": strconv.Itoa(len(runs.Others) + 1),
		"aggregator-routing": strconv.FormatBool(runs.Layout.Options.AggregatorRouting),
		"kubelet-certs":      runs.Layout.Options.KubeletCerts,
	}
	want := map[string]string{
		"version": o.Version, "nodes": strconv.Itoa(o.Nodes),
		"aggregator-routing": strconv.FormatBool(o.AggregatorRouting),
		"kubelet-certs":      o.KubeletCerts,
	}
	for _, name := range o.given {
		if has[name] != want[name] {
			return fmt.Errorf("a cluster runs with -%s=%s, not %s", name, has[name], want[name])
		}
	}
	return nil
}
