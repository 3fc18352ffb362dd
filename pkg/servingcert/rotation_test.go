package servingcert

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

var standard = func() (c Config) { c.setDefaults(); return c }()

// made by the package itself: an identity for host of that moment.
func issued(t *testing.T, at time.Time) *identity {
	t.Helper()
	i, _, err := standard.next(&identity{}, []string{host}, false, at)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// Broken parts of a Secret are repaired, good parts are kept, and the log gives the reason for
// each.
func TestBrokenSecrets(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good, foreign := issued(t, now), issued(t, now)
	// Its authority is due before its certificate is.
	old, err := issued(t, now.Add(-4*365*day)).withCertificate([]string{host}, 365*day, now)
	if err != nil {
		t.Fatal(err)
	}
	with := func(changes map[string][]byte) map[string][]byte {
		data := good.data()
		maps.Copy(data, changes)
		return data
	}
	text := func(s string) []byte { return []byte(s) }
	for _, tc := range []struct {
		name                 string
		data                 map[string][]byte
		names                []string
		after                time.Duration // from when it was made
		sameCert, sameSigner bool
		authorities          int
		says                 []string
	}{
		{name: "good", data: good.data(), sameCert: true, sameSigner: true, authorities: 1},
		{name: "nothing", authorities: 1, says: []string{
			"it was empty", "new authority: there is none with a key",
			"new certificate: there is none",
		}},
		{
			name: "another application's", data: map[string][]byte{"password": text("x")}, authorities: 1,
			says: []string{"it was empty"},
		},
		{name: "noise", data: map[string][]byte{
			certName: text("x"), keyName: text("x"), authoritiesName: text("x"),
			authorityKeyName: text("x"),
		}, authorities: 1, says: []string{"ca.crt: it has text that is not " +
			"PEM", "ca.crt: it has no certificate authority", "tls.crt and tls.key: "}},
		{
			name: "certificate that is no PEM", data: with(map[string][]byte{certName: text("x")}), sameSigner: true,
			authorities: 1, says: []string{"tls.crt and tls.key: ", "new certificate: there is none"},
		},
		{
			name: "certificate without its key", data: with(map[string][]byte{keyName: nil}), sameSigner: true, authorities: 1,
			says: []string{"tls.crt and tls.key: "},
		},
		{
			name: "key of another certificate", data: with(map[string][]byte{keyName: foreign.keyPEM}), sameSigner: true,
			authorities: 1, says: []string{"does not match"},
		},
		{
			name: "certificate of another authority",
			data: with(map[string][]byte{
				certName: foreign.certPEM,
				keyName:  foreign.keyPEM,
			}), sameSigner: true, authorities: 1, says: []string{"new certificate: x509: certificate " +
				"signed by unknown authority"},
		},
		{
			name: "authority's key is missing", data: with(map[string][]byte{authorityKeyName: nil}), sameCert: true,
			authorities: 2, says: []string{"ca.key: ", "new authority: there is none with a key"},
		},
		{
			name: "key of another authority", data: with(map[string][]byte{authorityKeyName: foreign.signerPEM}), sameCert: true,
			authorities: 2, says: []string{"ca.key: ", "does not match"},
		},
		{
			name: "authority is missing", data: with(map[string][]byte{authoritiesName: nil}), authorities: 1,
			says: []string{"ca.crt: it has no certificate authority"},
		},
		{
			name: "certificate that is no authority", data: with(map[string][]byte{authoritiesName: good.certPEM}),
			authorities: 1, says: []string{`"` + host + `" is not a certificate authority`},
		},
		{
			name: "authority that is no certificate",
			data: with(map[string][]byte{authoritiesName: append(encode("CERTIFICATE", []byte("x")),
				good.bundle()...)}), sameCert: true, sameSigner: true, authorities: 1, says: []string{"ca.crt: x509: "},
		},
		{
			name: "foreign authority beside ours",
			data: with(map[string][]byte{authoritiesName: append(good.bundle(),
				foreign.bundle()...)}), after: 2 * time.Hour, sameCert: true, sameSigner: true, authorities: 1,
			says: []string{"are no longer published"},
		},
		{name: "everything of somebody else", data: foreign.data(), sameCert: true, sameSigner: true, authorities: 1},
		{
			name: "text around", data: with(map[string][]byte{authoritiesName: append(good.bundle(), "note"...)}),
			sameCert: true, sameSigner: true, authorities: 1, says: []string{"ca.crt: it has text that is not PEM"},
		},
		{
			name: "name is missing", data: good.data(), names: []string{"other.kube-system.svc"}, sameSigner: true,
			authorities: 1, says: []string{"not other.kube-system.svc"},
		},
		{
			name: "one of two names is missing", data: good.data(), names: []string{host, "other.kube-system.svc"},
			sameSigner: true, authorities: 1, says: []string{"not other.kube-system.svc"},
		},
		{
			name: "certificate at the end of its life", data: good.data(), after: 300 * day, sameSigner: true, authorities: 1,
			says: []string{"two thirds of its lifetime"},
		},
		{
			name: "certificate expired", data: good.data(), after: 366 * day, sameSigner: true, authorities: 1,
			says: []string{"expired"},
		},
		{
			name: "authority at the end of its life", data: old.data(), sameCert: true, authorities: 2,
			says: []string{"new authority: the newest has passed two thirds of its lifetime"},
		},
		{
			name: "everything expired", data: good.data(), after: 6 * 365 * day, authorities: 1,
			says: []string{"new authority: ", "new certificate: "},
		},
		{name: "not valid yet", data: good.data(), after: -2 * time.Hour, authorities: 2, says: []string{"not valid yet"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			names, at := tc.names, now.Add(tc.after)
			if names == nil {
				names = []string{host}
			}
			found, why := parse(tc.data)
			next, reasons, err := standard.next(found, names, false, at)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.unusable(at, names...); err != nil {
				t.Errorf("a client refuses it: %v", err)
			}
			if same := bytes.Equal(next.certPEM, tc.data[certName]); same != tc.sameCert {
				t.Errorf("the certificate is the same: %v, want %v", same, tc.sameCert)
			}
			if same := bytes.Equal(next.signerPEM, tc.data[authorityKeyName]); same != tc.sameSigner {
				t.Errorf("the authority's key is the same: %v, want %v", same, tc.sameSigner)
			}
			if got := len(next.authorities); got != tc.authorities {
				t.Errorf("%d authorities, want %d", got, tc.authorities)
			}
			said := strings.Join(append(why, reasons...), "; ")
			for _, want := range tc.says {
				if !strings.Contains(said, want) {
					t.Errorf("it says %q, want %q in it", said, want)
				}
			}
			for _, secret := range [][]byte{good.keyPEM, good.signerPEM} {
				if strings.Contains(said, string(secret)) {
					t.Error("it says a key")
				}
			}

			// What was written is valid, and needs no change.
			again, why := parse(next.data())
			settled, reasons, err := standard.next(again, names, false, at)
			if err != nil || settled != again || len(why)+len(reasons) > 0 || !containsAll(next.data(), settled.data()) {
				t.Errorf("what was written is changed again: %q %q %v", why, reasons, err)
			}
		})
	}
}

// Certificates are replaced at two thirds of their life, and not all at the same moment.
func TestDue(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var drawn []time.Duration
	for range 20 {
		i := issued(t, now)
		drawn = append(drawn, due(i.leaf).Sub(now))
		if got := due(i.leaf); !got.Equal(due(i.leaf)) {
			t.Errorf("two replicas disagree: %v", got)
		}
	}
	life := float64(365 * day)
	if first, last := float64(slices.Min(drawn))/life, float64(slices.Max(drawn))/life; first < 0.61 || last > 0.72 ||
		last-first < 0.02 {
		t.Errorf("they are due from %.3f to %.3f of their life, want all over 0.617 to 0.717", first, last)
	}
}
