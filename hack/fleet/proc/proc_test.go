package proc

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	m := Machine{Busy: 8 * time.Second, Idle: 45 * time.Second}
	later := Machine{Busy: m.Busy + 3*time.Second, Idle: m.Idle + time.Second}
	if part := later.Since(m); part != 0.75 {
		t.Errorf("busy %v", part)
	}
	if part := m.Since(m); part != 0 {
		t.Errorf("busy %v in no time", part)
	}
}

// TestEnded reads the memory of a process that has ended, and has none.
func TestEnded(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var err error
	for begun := time.Now(); err == nil && time.Since(begun) < time.Minute; {
		_, err = MemoryOf(cmd.Process.Pid)
	}
	if err == nil || !strings.Contains(err.Error(), "it has ended") {
		t.Errorf("error %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSelf reads what the kernel says of this process.
func TestSelf(t *testing.T) {
	pid := os.Getpid()
	before, err := CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
	}
	after, err := CPU(pid)
	if err != nil || after <= before || after-before > time.Second {
		t.Errorf("%v of CPU, %v", after-before, err)
	}
	m, err := MemoryOf(pid)
	if err != nil || m.RSS < 1<<20 || m.Peak < m.RSS || m.Anonymous < 100<<10 || m.Anonymous >= m.RSS {
		t.Errorf("%+v, %v", m, err)
	}
	for what, count := range map[string]func(int) (int, error){"files": Files, "threads": Threads} {
		if n, err := count(pid); err != nil || n < 2 {
			t.Errorf("%d %s, %v", n, what, err)
		}
	}
	if m, err := MachineNow(); err != nil || m.Busy <= 0 || m.Idle <= 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if n, err := RaiseFiles(100); err != nil || n < 100 {
		t.Errorf("%d files, %v", n, err)
	}
}
