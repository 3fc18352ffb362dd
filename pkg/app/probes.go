package app

import "strings"

// closedProbes returns the paths of probes that --authorization-always-allow-paths leaves out. The kubelet
// sends no credentials with probes, so these depend on what the API server permits anonymous users.
func (o *serving) closedProbes() []string {
	var forbidden []string
	for _, path := range []string{"/livez", "/readyz"} {
		if !allows(o.Authorization.AlwaysAllowPaths, path) {
			forbidden = append(forbidden, path)
		}
	}
	return forbidden
}

// allows reports whether path matches one of patterns, which may end in a star.
func allows(patterns []string, path string) bool {
	path = strings.TrimPrefix(path, "/")
	for _, p := range patterns {
		p = strings.TrimPrefix(p, "/")
		if prefix, open := strings.CutSuffix(p, "*"); p == path || open && strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}
