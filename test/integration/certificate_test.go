//go:build integration

package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// servingSecret is the Secret of deploy/ in which the server keeps its serving certificate.
const servingSecret = "metrics-server-serving"

// startKeeping starts a server that keeps its serving certificate in the Secret, which is empty at
// first, and makes the APIServices verify it. The caller must hold aggregator until the server has
// ended.
func startKeeping(t *testing.T, f *fleet, args ...string) *metricsServer {
	t.Helper()
	changeSecret(t, func(s *corev1.Secret) { s.Data = nil })
	patchAPIServices(t, `"insecureSkipTLSVerify":false,"caBundle":null`)
	f.env = append(f.env, "POD_NAMESPACE=kube-system")
	return startServer(t, f, append(args, "--serving-certificate-secret="+servingSecret)...)
}

// changeSecret changes the serving certificate's Secret, even if others change it at the same time.
func changeSecret(t *testing.T, change func(*corev1.Secret)) {
	t.Helper()
	secrets := cluster.client.CoreV1().Secrets("kube-system")
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		s, err := secrets.Get(t.Context(), servingSecret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(s)
		_, err = secrets.Update(t.Context(), s, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publishedBundle returns the authorities by which the API server verifies an API service.
func publishedBundle(ctx context.Context, api string) ([]byte, error) {
	body, err := cluster.client.Discovery().RESTClient().Get().
		AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/" + api).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	var s struct {
		Spec struct {
			CABundle              []byte
			InsecureSkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return nil, err
	}
	if s.Spec.InsecureSkipTLSVerify || len(s.Spec.CABundle) == 0 {
		return nil, fmt.Errorf("%s is not verified", api)
	}
	return s.Spec.CABundle, nil
}

// presentsTo returns the certificate that a new connection gets if it trusts the published authorities.
func (s *metricsServer) presentsTo(ctx context.Context, api string) (*x509.Certificate, error) {
	bundle, err := publishedBundle(ctx, api)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: serviceName}}).DialContext(
		ctx, "tcp", "127.0.0.1:"+s.port,
	)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// TestServingCertificate checks that the API server verifies the server of a new installation by
// the authority that the server itself has published. Then the certificate changes, and a new
// authority is published, while clients send requests through the aggregator and directly: none
// fails.
func TestServingCertificate(t *testing.T) {
	t.Parallel() // the server looks once a minute
	aggregator.Lock()
	t.Cleanup(aggregator.Unlock)
	f := newFleet(t, 1, 1)
	s := startKeeping(t, f, "-v=10")
	s.ready(t)
	s.lead(t)
	apis := []string{"v1.metrics.k8s.io", "v1beta1.metrics.k8s.io"}
	for _, api := range apis {
		if _, err := s.presentsTo(t.Context(), api); err != nil {
			t.Fatal(err)
		}
	}

	ctx, quit := context.WithCancel(t.Context())
	defer quit()
	var (
		asking   sync.WaitGroup
		mu       sync.Mutex
		answers  [2]int
		failures []string
		token    = reader(t)
		client   = newClient(nil)
	)
	for way, ask := range []func() error{
		func() error {
			code, body, err := client.get(ctx, cluster.admin.Host+nodesPath, token)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("%d %s", code, body)
			}
			return err
		},
		func() error { _, err := s.presentsTo(ctx, apis[0]); return err },
	} {
		eventually(t, "clients are answered", ask)
		asking.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
				err := ask()
				mu.Lock()
				if err == nil {
					answers[way]++
				} else if ctx.Err() == nil {
					failures = append(failures, err.Error())
				}
				mu.Unlock()
			}
		})
	}

	// One by the same authority that is at the end of its life is replaced at the next look.
	stale := staleCertificate(t)
	changeSecret(t, func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = stale.crt, stale.key })
	eventually(t, "a certificate at the end of its life is replaced", func() error {
		if c := secretCertificate(t); c.NotAfter.Before(time.Now().Add(300 * 24 * time.Hour)) {
			return fmt.Errorf("the Secret has one until %v", c.NotAfter)
		}
		got, err := s.presentsTo(t.Context(), apis[0])
		if err == nil && !got.Equal(secretCertificate(t)) {
			err = errors.New("another one is served")
		}
		return err
	})
	// An authority without its key needs a successor, which is published but does not sign yet.
	before := secretCertificate(t)
	changeSecret(t, func(s *corev1.Secret) { delete(s.Data, "ca.key") })
	eventually(t, "two authorities are published", func() error {
		for _, api := range apis {
			if bundle, err := publishedBundle(t.Context(), api); err != nil ||
				strings.Count(string(bundle), "BEGIN CERTIFICATE") != 2 {
				return fmt.Errorf("%s has %s (%w)", api, bundle, err)
			}
		}
		return nil
	})
	if got, err := s.presentsTo(t.Context(), apis[1]); err != nil || !got.Equal(before) {
		t.Errorf("before the new authority has settled, another certificate is served (%v)", err)
	}
	<-time.After(3 * time.Second) // in which the aggregator uses the new bundle
	quit()
	asking.Wait()
	if n := len(failures); n > 0 {
		t.Errorf("%d requests failed: %s", n, strings.Join(failures[:min(n, 10)], "\n"))
	}
	if slices.Min(answers[:]) < 10 {
		t.Errorf("%v answers through the aggregator and past it, want many", answers)
	}

	log := s.output()
	for name, key := range secretData(t) {
		if strings.HasSuffix(name, ".key") && strings.Contains(log, strings.Split(string(key), "\n")[1]) {
			t.Errorf("%s is in the log", name)
		}
	}
}

func secretData(t *testing.T) map[string][]byte {
	t.Helper()
	s, err := cluster.client.CoreV1().Secrets("kube-system").Get(t.Context(), servingSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s.Data
}

// secretCertificate is the serving certificate in the Secret.
func secretCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	data := secretData(t)
	return keyPair(t, data["tls.crt"], data["tls.key"]).Leaf
}

// staleCertificate is a serving certificate by the authority in the Secret that has been valid for most of its year.
func staleCertificate(t *testing.T) (pair struct{ crt, key []byte }) {
	t.Helper()
	data := secretData(t)
	authority := keyPair(t, data["ca.crt"], data["ca.key"])
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{serviceName},
		NotBefore:    time.Now().AddDate(0, 0, -300),
		NotAfter:     time.Now().AddDate(0, 0, 65),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority.Leaf, &key.PublicKey, authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair.crt = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: crt})
	pair.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return pair
}
