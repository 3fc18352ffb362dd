package network

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestWithoutRights sets up a network without the right to, as users of Ubuntu do.
func TestWithoutRights(t *testing.T) {
	t.Setenv(variable, "1")
	runtime.LockOSThread() // this thread, which has no rights from now on, ends with the test
	none := [2]unix.CapUserData{}
	if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
		t.Fatal(err)
	}
	err := SetUp()
	if err == nil {
		t.Fatal("the network was set up")
	}
	for _, says := range []string{"operation not permitted", "run as root", "apparmor_restrict_unprivileged_userns=0"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%v: it does not say %q", err, says)
		}
	}
}
