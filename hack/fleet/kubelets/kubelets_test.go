package kubelets

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"metrics-server/pkg/kubelet/kubelettest"
)

// addr is an address that only this test uses.
func addr(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 10399) }

func spec(t *testing.T, ip string, pods ...string) Spec {
	t.Helper()
	s := Spec{Addr: addr(ip), Seed: 1, Boot: time.Now().Add(-time.Hour)}
	for i, name := range pods {
		s.Pods = append(s.Pods, kubelettest.Pod{Namespace: "n", Name: name, Seed: uint64(i), Started: []time.Time{s.Boot}})
	}
	return s
}

func TestServer(t *testing.T) {
	s := Serve(Config{Token: "good"})
	defer s.Close()
	one, two, bad := spec(t, "127.31.0.1", "a", "b"), spec(t, "127.31.0.2", "c"), spec(t, "127.31.0.3", "d")
	bad.Fault = "500"
	for _, spec := range []Spec{one, two, bad} {
		if err := s.Add(spec); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer tr.CloseIdleConnections()
	get := func(of Spec, token string) (code int, body string) {
		req, _ := http.NewRequest(http.MethodGet, "https://"+of.Addr.String()+"/metrics/resource", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for range 3 {
		if code, body := get(one, "good"); code != 200 || !strings.Contains(body, `pod="b"`) {
			t.Errorf("status %d, body %q", code, body)
		}
	}
	if code, body := get(two, "good"); code != 200 || !strings.Contains(body, `pod="c"`) {
		t.Errorf("status %d, body %q", code, body)
	}
	if code, _ := get(bad, "good"); code != 500 {
		t.Errorf("a faulty kubelet: %d", code)
	}
	if code, _ := get(one, "bad"); code != 401 {
		t.Errorf("a bad token: %d", code)
	}
	if err := s.Add(spec(t, "127.31.0.1", "x")); err != nil {
		t.Fatal(err)
	}
	if _, body := get(one, "good"); !strings.Contains(body, `pod="x"`) || strings.Contains(body, `pod="a"`) {
		t.Errorf("after it was told other pods: %q", body)
	}
	if got := s.Stats(); got.Answers != 5 || got.Faults != 1 || got.Refused != 1 || got.Bytes == 0 {
		t.Errorf("%+v", got)
	}
	if err := s.Add(Spec{Addr: addr("127.31.0.4"), Fault: "x"}); err == nil {
		t.Error("an unknown fault is taken")
	}
}
