package servingcert

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const apiServicesPath = "/apis/apiregistration.k8s.io/v1/apiservices/"

// apiService is what of an APIService matters here.
type apiService struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
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

// serverNames are the names that the aggregator wants in the certificate.
func serverNames(services []*apiService) (names []string) {
	for _, s := range services {
		names = append(names, s.Spec.Service.Name+"."+s.Spec.Service.Namespace+".svc")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// services returns the APIServices that lead here: all of them, or an error.
func (k *Keeper) services(ctx context.Context) ([]*apiService, error) {
	log := klog.FromContext(ctx)
	var ours []*apiService
	for _, name := range k.config.APIServices {
		s := &apiService{}
		body, err := k.config.Client.CoreV1().RESTClient().Get().AbsPath(apiServicesPath+name).SetHeader("Accept", "application/json").DoRaw(ctx)
		if err == nil {
			err = json.Unmarshal(body, s)
		}
		elsewhere := ""
		switch to := s.Spec.Service; {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, fmt.Errorf("get APIService %s: %w", name, err)
		case to == nil:
			elsewhere = "the API server itself"
		case to.Namespace != k.config.Namespace:
			elsewhere = "service " + to.Namespace + "/" + to.Name
		default:
			ours = append(ours, s)
		}
		if k.news("way of "+name, elsewhere) {
			log.Info("an APIService leads elsewhere and is left alone", "apiService", name, "to", elsewhere, "namespace", k.config.Namespace)
		}
	}
	none := ""
	if len(ours) == 0 {
		none = "none"
	}
	if k.news("services", none) {
		log.Info("no APIService leads here, so there is no name to make a serving certificate for: apply deploy/ to register them", "apiServices", k.config.APIServices)
	}
	return ours, nil
}

// publish has the aggregator believe the authorities of i, and verify.
func (k *Keeper) publish(ctx context.Context, services []*apiService, i *identity) (err error) {
	log, bundle, settled := klog.FromContext(ctx), i.bundle(), made(i.leaf).Add(k.config.Settle)
	for _, s := range services {
		name, until := s.Metadata.Name, ""
		if s.Spec.InsecureSkipTLSVerify && time.Now().Before(settled) {
			// Whoever turned verification off may be rolling this server out: replicas of before have certificates of their own.
			until = settled.String()
		}
		if k.news("verification by "+name, until) {
			log.Info("the APIService has insecureSkipTLSVerify, which stays until every replica has had time to serve the new certificate", "apiService", name, "until", until)
		}
		if until != "" || !s.Spec.InsecureSkipTLSVerify && bytes.Equal(s.Spec.CABundle, bundle) {
			continue
		}
		if patchErr := k.patch(ctx, s, bundle); patchErr != nil {
			err = errors.Join(err, fmt.Errorf("patch APIService %s: %w", name, patchErr))
			continue
		}
		log.Info("wrote the caBundle of an APIService", "apiService", name, "authorities", len(i.authorities))
	}
	return err
}

// patch gives an APIService its caBundle, beside which insecureSkipTLSVerify is not allowed, unless s has changed meanwhile.
func (k *Keeper) patch(ctx context.Context, s *apiService, bundle []byte) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": s.Metadata.ResourceVersion},
		"spec":     map[string]any{"caBundle": bundle, "insecureSkipTLSVerify": nil},
	})
	if err != nil {
		return err
	}
	return k.config.Client.CoreV1().RESTClient().Patch(types.MergePatchType).AbsPath(apiServicesPath+s.Metadata.Name).
		SetHeader("Accept", "application/json").Body(patch).Do(ctx).Error()
}

// published knows since when all clients have been told of the newest authority, as far as this process has seen. A
// restart only delays what waits for that.
type published struct {
	authority *x509.Certificate
	since     time.Time
}

// settled says whether they have been for the period settle. services are all that there are.
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
