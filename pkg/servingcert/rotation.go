package servingcert

import (
	"crypto/x509"
	"fmt"
	"hash/crc32"
	"slices"
	"time"
)

// next returns what i is to become at now so that clients which ask for names believe it, and why. Nothing to do: i itself.
// settled says that every client knows the newest authority.
func (c *Config) next(i *identity, names []string, settled bool, now time.Time) (next *identity, why []string, err error) {
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
	left := c.believed(next, now)
	if n := len(next.authorities) - len(left); n > 0 {
		shorter := *next
		shorter.authorities = left
		next = &shorter
		why = append(why, fmt.Sprintf("%d authorities that signed nothing that is served are not published any more", n))
	}
	return next, why, nil
}

// signerUnfit says why the newest authority needs a successor.
func signerUnfit(i *identity, now time.Time) string {
	switch {
	case i.signer == nil:
		return "there is none with a key"
	case now.Before(i.authorities[0].NotBefore):
		return "the newest is not valid yet"
	case !now.Before(due(i.authorities[0])):
		return "the newest is at two thirds of its life"
	}
	return ""
}

// certificateUnfit says why the certificate needs a successor. One that clients refuse is replaced at once, whoever knows the
// authority that signs. Otherwise a new authority signs nothing before all know it.
func (c *Config) certificateUnfit(i *identity, names []string, settled bool, now time.Time) string {
	if err := i.unusable(now, names...); err != nil {
		return err.Error()
	}
	switch ofNewest := i.leaf.CheckSignatureFrom(i.authorities[0]) == nil; {
	case !ofNewest && settled:
		return fmt.Sprintf("the new authority has been published for %v", c.Settle)
	case ofNewest && !now.Before(due(i.leaf)):
		return "it is at two thirds of its life"
	}
	return ""
}

// believed are the authorities that are to be published: the newest, that of the certificate, and, while a replica may still
// serve an earlier certificate, all that were.
func (c *Config) believed(i *identity, now time.Time) []*x509.Certificate {
	replaced := now.After(made(i.leaf).Add(c.Settle))
	var left []*x509.Certificate
	for n, a := range i.authorities {
		needed := n == 0 || i.leaf.CheckSignatureFrom(a) == nil || !replaced && now.Before(a.NotAfter)
		if needed && !slices.ContainsFunc(left, a.Equal) {
			left = append(left, a)
		}
	}
	return left
}

// made is when this package made c.
func made(c *x509.Certificate) time.Time { return c.NotBefore.Add(backdate) }

// due is when c is to be replaced: at two thirds of its life, give or take a twentieth. That is drawn from the certificate
// itself, so that all replicas agree and the certificates of many clusters do not come due together.
func due(c *x509.Certificate) time.Time {
	draw := float64(crc32.ChecksumIEEE(c.Raw))/(1<<32) - 0.5
	return made(c).Add(time.Duration(float64(c.NotAfter.Sub(made(c))) * (2.0/3 + draw/10)))
}
