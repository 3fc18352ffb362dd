package servingcert

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"metrics-server/pkg/kubeapi"
)

// apiService holds the fields of an APIService that matter here.
type apiService struct {
	Metadata struct {
		Name            string         `json:"name"`
		ResourceVersion string         `json:"resourceVersion"`
		ManagedFields   []managedField `json:"managedFields,omitempty"`
	} `json:"metadata"`
	Spec struct {
		Service *struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		CABundle              []byte `json:"caBundle"`
		InsecureSkipTLSVerify bool   `json:"insecureSkipTLSVerify"`
	} `json:"spec"`
}

// managedField says which fields of the specification a client set last.
type managedField struct {
	Manager  string `json:"manager"`
	FieldsV1 struct {
		Spec map[string]json.RawMessage `json:"f:spec"`
	} `json:"fieldsV1"`
}

// setBy names the clients that set a field of the specification, such as "helm" or "kustomize-controller".
func (s *apiService) setBy(field string) string {
	var managers []string
	for _, m := range s.Metadata.ManagedFields {
		if _, ok := m.FieldsV1.Spec["f:"+field]; ok {
			managers = append(managers, m.Manager)
		}
	}
	return cmp.Or(strings.Join(managers, ", "), "unknown")
}

// The states of an APIService, as the metric has them.
const (
	stateUnknown    = "unknown"    // not read yet, or not readable
	stateAbsent     = "absent"     // there is none
	stateElsewhere  = "elsewhere"  // it points to another Service, or to the API server itself
	stateUnverified = "unverified" // it points to this server, with insecureSkipTLSVerify
	stateVerified   = "verified"   // it points to this server, and the certificate is verified
)

// observe records the state of an APIService in the metric.
func (k *Keeper) observe(name, state string) {
	if k.states[name] == state {
		return
	}
	k.apiServices.DeleteLabelValues(name, k.states[name])
	k.apiServices.WithLabelValues(name, state).Set(1)
	k.states[name] = state
}

// serverNames returns the names that the aggregator requires in the certificate.
func serverNames(services []*apiService) (names []string) {
	for _, s := range services {
		names = append(names, serverName(s.Spec.Service.Name, s.Spec.Service.Namespace))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func serverName(service, namespace string) string { return service + "." + namespace + ".svc" }

// get reads an APIService, as it is now or, with version "0", as the API server has it in its cache, which costs less.
// It returns an empty one with an error.
func (k *Keeper) get(ctx context.Context, name, version string) (*apiService, error) {
	s := &apiService{}
	body, err := k.config.Client.CoreV1().RESTClient().Get().AbsPath(kubeapi.APIServicePath(name)).
		Param("resourceVersion", version).SetHeader("Accept", "application/json").DoRaw(ctx)
	if err == nil {
		err = json.Unmarshal(body, s)
	}
	return s, err
}

// stateOf returns the state of an APIService as get returns it.
func (k *Keeper) stateOf(s *apiService, err error) string {
	switch to := s.Spec.Service; {
	case apierrors.IsNotFound(err):
		return stateAbsent
	case err != nil:
		return stateUnknown
	case to == nil, to.Namespace != k.config.Namespace, k.config.Service != "" && to.Name != k.config.Service:
		return stateElsewhere
	case s.Spec.InsecureSkipTLSVerify:
		return stateUnverified
	}
	return stateVerified
}

// services returns the APIServices that point to this server. The error says which could not be read: they may, too.
func (k *Keeper) services(ctx context.Context) (ours []*apiService, unread error) {
	for _, name := range k.config.APIServices {
		s, err := k.get(ctx, name, "")
		state, elsewhere := k.stateOf(s, err), ""
		k.observe(name, state)
		switch state {
		case stateUnknown:
			unread = errors.Join(unread, &requestError{"get APIService " + name, err})
			continue
		case stateElsewhere:
			elsewhere = "the API server itself"
			if to := s.Spec.Service; to != nil {
				elsewhere = "service " + to.Namespace + "/" + to.Name
			}
		case stateUnverified, stateVerified:
			ours = append(ours, s)
		}
		k.follow(ctx, s, name, elsewhere)
	}
	if len(ours) == 0 && unread != nil {
		return nil, unread
	}
	none := ""
	if len(ours) == 0 {
		none = "none"
	}
	if k.news("services", none) {
		klog.FromContext(ctx).Info("Warning: No APIService points to this server, so nobody asks it: apply deploy/ to "+
			"register it", "apiServices", k.config.APIServices)
	}
	return ours, unread
}

// follow logs where an APIService points. One that points to another server is never redirected: whoever
// installs another metrics server does so on purpose, and a fight would leave autoscalers without
// metrics. If it pointed to this server before, the log reports an error every hour, because autoscalers
// now trust whoever answers there.
func (k *Keeper) follow(ctx context.Context, s *apiService, name, elsewhere string) {
	log := klog.FromContext(ctx)
	before, ledHere := k.led[name]
	if elsewhere == "" {
		k.news("target of "+name, "")
		if to := s.Spec.Service; to != nil {
			if ledHere && to.Name != before {
				log.Error(nil, "An APIService points to another Service of this namespace than before, and the certificate "+
					"gets the name of this Service. If it was not changed on purpose, change it back",
					"apiService", name, "to", to.Name, "before", before, "setBy", s.setBy("service"))
			}
			k.led[name] = to.Name
		}
		return
	}
	if !ledHere {
		if k.news("target of "+name, elsewhere) {
			log.Info("An APIService points to another server and is left alone",
				"apiService", name, "to", elsewhere, "namespace", k.config.Namespace, "setBy", s.setBy("service"))
		}
		return
	}
	if k.news("target of "+name, elsewhere+time.Now().Truncate(time.Hour).String()) {
		log.Error(nil, "An APIService that pointed to this server points to another one, and autoscalers trust whoever "+
			"answers there. It is left alone, since somebody may have installed another metrics server on "+
			"purpose. If not, find out who changed it, and change it back",
			"apiService", name, "to", elsewhere, "setBy", s.setBy("service"), "remedy", fmt.Sprintf(
				`kubectl patch apiservice %s --type=merge -p '{"spec":{"service":{"namespace":%q,"name":%q},`+
					`"insecureSkipTLSVerify":null,"caBundle":null}}'`,
				name, k.config.Namespace, before))
	}
}

// publish writes the authorities of i into the caBundle of the APIServices, so that the aggregator trusts
// them. It skips an APIService with insecureSkipTLSVerify: the API server rejects that field together
// with a caBundle, so the manifest that sets it could never be applied again.
func (k *Keeper) publish(ctx context.Context, services []*apiService, i *identity) (err error) {
	log, bundle := klog.FromContext(ctx), i.bundle()
	for _, s := range services {
		name, unverified := s.Metadata.Name, ""
		if s.Spec.InsecureSkipTLSVerify {
			unverified = s.setBy("insecureSkipTLSVerify")
		}
		if k.news("verification by "+name, unverified) {
			log.Info("Warning: The API server does not verify this server: the APIService has insecureSkipTLSVerify, which the "+
				"server leaves alone because a manifest may set it. Once no manifest does, remove the field, and the server fills "+
				"in caBundle",
				"apiService", name, "setBy", unverified, "remedy", fmt.Sprintf(
					`kubectl patch apiservice %s --type=merge -p '{"spec":{"insecureSkipTLSVerify":null}}'`, name))
		}
		if unverified != "" || bytes.Equal(s.Spec.CABundle, bundle) {
			continue
		}
		if patchErr := k.patch(ctx, s, bundle); patchErr != nil {
			err = errors.Join(err, &requestError{"patch APIService " + name, patchErr})
			continue
		}
		k.noteRival(ctx, s, i)
		if len(s.Spec.CABundle) > 0 {
			log.Info("Replaced the caBundle of an APIService",
				"apiService", name, "authorities", len(i.authorities), "setBefore", s.setBy("caBundle"))
		} else {
			log.Info("Wrote the caBundle of an APIService", "apiService", name, "authorities", len(i.authorities))
		}
	}
	return err
}

// rival is who last wrote a caBundle without this server's authority into an APIService.
type rival struct {
	name string
	at   time.Time
}

// noteRival warns of a program that writes such a caBundle twice in a day. Requests through the API
// server fail after each of its writes until the next pass, and neither side gives in.
func (k *Keeper) noteRival(ctx context.Context, s *apiService, i *identity) {
	ours := func(a *x509.Certificate) bool {
		return bytes.Contains(s.Spec.CABundle, encode("CERTIFICATE", a.Raw))
	}
	if len(s.Spec.CABundle) == 0 || slices.ContainsFunc(i.authorities, ours) {
		return
	}
	name, by := s.Metadata.Name, s.setBy("caBundle")
	before, now := k.rivals[name], time.Now()
	k.rivals[name] = rival{by, now}
	if before.name != by || now.Sub(before.at) > day || !k.news("rival of "+name, by) {
		return
	}
	klog.FromContext(ctx).Error(nil, "Another program keeps writing another caBundle into an APIService, and requests "+
		"for metrics fail until this server has written its own again. Only one of them can write it",
		"apiService", name, "setBy", by,
		"remedy", "cert-manager: remove the annotation cert-manager.io/inject-ca-from. A manifest: remove caBundle from it. "+
			"A second metrics-server in this namespace: start that one with --serving-certificate-secret=")
}

// patch sets the caBundle of an APIService, unless it has changed since s was read.
func (k *Keeper) patch(ctx context.Context, s *apiService, bundle []byte) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": s.Metadata.ResourceVersion},
		"spec":     map[string]any{"caBundle": bundle},
	})
	if err != nil {
		return err
	}
	return k.config.Client.CoreV1().RESTClient().Patch(types.MergePatchType).
		AbsPath(kubeapi.APIServicePath(s.Metadata.Name)).SetHeader("Accept", "application/json").Body(patch).Do(ctx).Error()
}

// published tracks since when every APIService has had the newest authority, as far as this process has
// seen. A restart only delays what waits for that.
type published struct {
	authority *x509.Certificate
	since     time.Time
}

// settled reports whether all services have had the newest authority of i for the period settle.
func (p *published) settled(now time.Time, i *identity, services []*apiService, settle time.Duration) bool {
	if len(i.authorities) == 0 {
		return false
	}
	newest := i.authorities[0]
	for _, s := range services {
		if !s.Spec.InsecureSkipTLSVerify && !bytes.Contains(s.Spec.CABundle, encode("CERTIFICATE", newest.Raw)) {
			p.authority = nil
			return false
		}
	}
	if p.authority == nil || !p.authority.Equal(newest) {
		p.authority, p.since = newest, now
	}
	return now.Sub(p.since) >= settle
}
