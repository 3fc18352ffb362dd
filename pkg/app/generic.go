package app

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/compatibility"
	"k8s.io/component-base/featuregate"
	logsapi "k8s.io/component-base/logs/api/v1"

	"metrics-server/pkg/server"
)

// genericRun holds those flags of the incumbent that every generic API server has. Some have no effect,
// because this server has no storage and no API versions to emulate, and ends watches in its own way.
type genericRun struct {
	*genericoptions.ServerRunOptions
	gates map[string]string // as given; the key may have the prefix "component:"
	idle  []string          // values of idleRunFlags that are lists
}

// idleRunFlags are the flags of genericRun that have no effect, with the reasons.
var idleRunFlags = map[string]string{
	"emulated-version":                            "there is only one version to emulate",
	"emulation-forward-compatible":                "there is only one version to emulate",
	"min-compatibility-version":                   "there is only one version to emulate",
	"runtime-config-emulation-forward-compatible": "there is only one version to emulate",
	"min-request-timeout":                         "a watch lasts 30 to 60 minutes unless its client sets timeoutSeconds",
	"shutdown-watch-termination-grace-period":     "watches end as soon as --shutdown-delay-duration is over",
	"storage-initialization-timeout":              "there is no storage",
	"shutdown-send-retry-after":                   "the last requests end within milliseconds",
}

func newGenericRun(name string) genericRun {
	// The feature gates of logging are not among those of the generic server. Adding them twice has no
	// effect.
	utilruntime.Must(logsapi.AddFeatureGates(utilfeature.DefaultMutableFeatureGate))
	defaults := server.NewGenericConfig("")
	// A registry of its own: the global one would have flags for components that are not here.
	o := genericoptions.NewServerRunOptionsForComponent(name, compatibility.NewComponentGlobalsRegistry())
	o.ShutdownDelayDuration = defaults.ShutdownDelayDuration
	return genericRun{ServerRunOptions: o, gates: map[string]string{}}
}

func (o *genericRun) addFlags(fs *pflag.FlagSet) {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddUniversalFlags(all)
	// The registry that implements these three flags rejects names that it does not know, and here it
	// knows none.
	skipped := []string{"emulated-version", "min-compatibility-version", "feature-gates"}
	all.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(skipped, f.Name) {
			fs.AddFlag(f)
		}
	})
	for _, name := range skipped[:2] {
		fs.StringSliceVar(&o.idle, name, nil, "")
	}
	fs.Var(gateValue(o.gates), "feature-gates",
		"Comma-separated list of NAME=true or NAME=false for the feature gates of the generic API server and of its "+
			"logging. One that is unknown or cannot be changed is ignored with a warning.")
	for name, reason := range idleRunFlags {
		fs.Lookup(name).Usage = "Accepted for compatibility, without effect: " + reason + "."
	}
	usage := func(name, text string) { fs.Lookup(name).Usage = text }
	usage("advertise-address",
		"The IP address of this server that discovery (/apis) reports to clients, unless --external-hostname is given. It "+
			"is used for nothing else: the API server finds this server by its Service.")
	usage("external-hostname", "The host name or address of this server that discovery (/apis) reports to clients.")
	usage("cors-allowed-origins",
		"Comma-separated list of regular expressions for the origins that browsers may send requests from (CORS). Each "+
			"must be anchored at the start by ^ or // and at the end by $ or :, such as //example\\.com$. Empty: none.")
	usage("goaway-chance",
		"The fraction of HTTP/2 requests, from 0 to 0.02, after which the server asks the client to open a new "+
			"connection. It has no effect unless --disable-http2-serving=false.")
	usage("livez-grace-period", "How long after the start /livez ignores start-up hooks that are not finished.")
	usage("max-requests-inflight",
		"How many read requests are answered at the same time; more are rejected with 429. 0: no limit.")
	usage("max-mutating-requests-inflight",
		"How many write requests are answered at the same time. This API has none, so they are rejected anyway. 0: no limit.")
	usage("request-timeout", "How long a request may take.")
	usage("shutdown-delay-duration",
		"How long requests are still answered after SIGTERM, while /readyz already fails, so that endpoints and the "+
			"aggregator stop sending them. It must be shorter than the pod's terminationGracePeriodSeconds.")
	usage("strict-transport-security-directives",
		"Comma-separated directives for the Strict-Transport-Security header (HSTS), such as "+
			"max-age=31536000,includeSubDomains,preload. Empty: no header.")
}

func (o *genericRun) applyTo(c *genericapiserver.Config) {
	c.CorsAllowedOriginList = o.CorsAllowedOriginList
	c.HSTSDirectives = o.HSTSDirectives
	c.ExternalAddress = o.ExternalHost
	c.PublicAddress = o.AdvertiseAddress
	c.MaxRequestsInFlight = o.MaxRequestsInFlight
	c.MaxMutatingRequestsInFlight = o.MaxMutatingRequestsInFlight
	c.GoawayChance = o.GoawayChance
	c.LivezGracePeriod = o.LivezGracePeriod
	c.ShutdownDelayDuration = o.ShutdownDelayDuration
	c.RequestTimeout = cmp.Or(o.RequestTimeout, c.RequestTimeout) // 0 would time every request out at once
}

// setGates sets the feature gates that were given, and returns those that it could not set, with the
// reasons.
func (o *genericRun) setGates(to featuregate.MutableFeatureGate) (ignored []string) {
	all := to.GetAll()
	for _, key := range slices.Sorted(maps.Keys(o.gates)) {
		name := key[strings.Index(key, ":")+1:]
		on, err := strconv.ParseBool(o.gates[key])
		// After a failed attempt, a FeatureGate rejects all further settings, so they are checked first.
		switch gate, known := all[featuregate.Feature(name)]; {
		case !known:
			err = errors.New("this server has no such feature gate")
		case err != nil:
			err = errors.New("give true or false")
		case gate.LockToDefault && gate.Default != on:
			err = fmt.Errorf("the gate is locked to %t", gate.Default)
		default:
			err = to.SetFromMap(map[string]bool{name: on})
		}
		if err != nil {
			ignored = append(ignored, fmt.Sprintf("%s=%s: %v", key, o.gates[key], err))
		}
	}
	return ignored
}

// gateValue is the value of --feature-gates.
type gateValue map[string]string

// Set implements pflag.Value.
func (v gateValue) Set(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); name != "" {
			v[name] = strings.TrimSpace(value)
		}
	}
	return nil
}

// Type implements pflag.Value.
func (gateValue) Type() string { return "mapStringBool" }

// String implements pflag.Value.
func (v gateValue) String() string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(v)) {
		pairs = append(pairs, name+"="+v[name])
	}
	return strings.Join(pairs, ",")
}
