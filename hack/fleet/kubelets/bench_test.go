package kubelets

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// BenchmarkAnswer is an answer of 43 KB and what a client has to do with it. With -cpuprofile, what is below
// http.(*conn).serve is the generator's part.
func BenchmarkAnswer(b *testing.B) {
	s := Serve(Config{Token: "good"})
	defer s.Close()
	one := Spec{Addr: addr("127.31.2.1"), Boot: time.Now().Add(-time.Hour)}
	for i := range 30 {
		one.Pods = append(one.Pods, kubelettest.Pod{
			Namespace: "team-0001", Name: fmt.Sprintf("cart-api-12-12345678-%05d", i), Seed: uint64(i),
			Started: []time.Time{one.Boot, one.Boot},
		})
	}
	if err := s.Add(one); err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true}
	defer tr.CloseIdleConnections()
	b.ReportAllocs()
	for b.Loop() {
		req, _ := http.NewRequest(http.MethodGet, "https://"+one.Addr.String()+"/metrics/resource", nil)
		req.Header.Set("Authorization", "Bearer good")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
	}
}
