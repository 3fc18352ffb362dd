package app

import (
	"runtime/debug"
	"strings"

	"k8s.io/client-go/pkg/version"
)

// buildVersion is the version that the build stamped (hack/ldflags.sh), or else the one that the go
// command derived from git.
func buildVersion() string {
	if v := version.Get().GitVersion; !strings.Contains(v, "$Format") { // client-go's placeholder
		return v
	}
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return info.Main.Version
	}
	return "v0.0.0-devel"
}
