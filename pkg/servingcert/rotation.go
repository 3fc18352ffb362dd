package servingcert

import (
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// next returns the identity that is to replace i at now, so that clients accept it for names, and the
// reasons. It returns i itself if nothing has to change. settled means that every client has the newest
// authority.
func (c *Config) next(
	i *identity, names []string, settled bool, now time.Time,
) (next *identity, why []string, err error) {
	next = i
	if reason := signerUnfit(i, now); reason != "" {
		if next, err = next.withAuthority(c.AuthorityLife, now); err != nil {
			return nil, nil, err
		}
		why = append(why, "new authority: "+reason)
		settled = false
	}
	if reason := c.certificateUnfit(next, names, settled, now); reason != "" {
		if next, err = next.withCertificate(names, c.CertificateLife, now); err != nil {
			return nil, nil, err
		}
		why = append(why, "new certificate: "+reason)
	}
	left := c.trusted(next, now)
	if n := len(next.authorities) - len(left); n > 0 {
		shorter := *next
		shorter.authorities = left
		next = &shorter
		why = append(why, fmt.Sprintf("%d authorities that no served certificate needs are no longer published", n))
	}
	return next, why, nil
}

// signerUnfit returns why the newest authority needs a successor, or "".
func signerUnfit(i *identity, now time.Time) string {
	switch {
	case i.signer == nil:
		return "there is none with a key"
	case now.Before(i.authorities[0].NotBefore):
		return "the newest is not valid yet"
	case !now.Before(due(i.authorities[0])):
		return "the newest has passed two thirds of its lifetime"
	}
	return ""
}

// certificateUnfit returns why the certificate needs a successor, or "". One that clients reject is
// replaced at once, even if not every client has the authority that signs. Otherwise a new authority
// signs nothing until all clients have it, or until the certificate is about to expire: by then some
// clients have the new authority, whereas no client accepts an expired certificate.
func (c *Config) certificateUnfit(i *identity, names []string, settled bool, now time.Time) string {
	if err := i.unusable(now, names...); err != nil {
		return err.Error()
	}
	newest := i.authorities[0]
	switch ofNewest := i.leaf.CheckSignatureFrom(newest) == nil; {
	case !ofNewest && settled:
		return fmt.Sprintf("the new authority has been published for %v", c.Settle)
	case !ofNewest && nearEnd(i.leaf, now) && now.After(created(newest).Add(c.Settle)):
		return "it has passed nine tenths of its lifetime, and not every APIService is known to have the new authority"
	case ofNewest && !now.Before(due(i.leaf)):
		return "it has passed two thirds of its lifetime"
	}
	return ""
}

// nearEnd reports whether c has passed nine tenths of its life.
func nearEnd(c *x509.Certificate, now time.Time) bool {
	return now.After(c.NotAfter.Add(-c.NotAfter.Sub(created(c)) / 10))
}

// trusted returns the authorities to publish: the newest, the one that signed the certificate, and, while
// a replica may still serve an earlier certificate, all previous ones.
func (c *Config) trusted(i *identity, now time.Time) []*x509.Certificate {
	replaced := now.After(created(i.leaf).Add(c.Settle))
	var left []*x509.Certificate
	for n, a := range i.authorities {
		needed := n == 0 || i.leaf.CheckSignatureFrom(a) == nil || !replaced && now.Before(a.NotAfter)
		if needed && !slices.ContainsFunc(left, a.Equal) {
			left = append(left, a)
		}
	}
	return left
}

// created returns when this package created c.
func created(c *x509.Certificate) time.Time { return c.NotBefore.Add(backdate) }

// due returns when to replace c: at two thirds of its life, plus or minus a twentieth. The offset is
// derived from the certificate itself, so that all replicas agree and the certificates of many clusters
// do not come due together.
func due(c *x509.Certificate) time.Time {
	draw := float64(crc32.ChecksumIEEE(c.Raw))/(1<<32) - 0.5
	return created(c).Add(time.Duration(float64(c.NotAfter.Sub(created(c))) * (2.0/3 + draw/10)))
}
