package proc

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 5000 0 3 0 1234 566 7 8 20 0 11 0 99 1000000 2000"
	if d, err := parseStat([]byte(stat)); err != nil || d != 18*time.Second {
		t.Errorf("%v, %v", d, err)
	}
	for _, bad := range []string{"", "42 (x)", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 4194560 5000 0 3 0 a b 7 8"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\nRssAnon:\t   150 kB\nThreads:\t8\n"
	if m, err := parseStatus([]byte(status)); err != nil ||
		m != (Memory{RSS: 200 << 10, Anonymous: 150 << 10, Peak: 300 << 10}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "Name:\tzombie\n", "VmRSS:\t x kB\n"} {
		if _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestParseMachine(t *testing.T) {
	m, err := parseMachine([]byte("cpu  100 200 300 4000 500 60 70 80 7 7\ncpu0 1 2\n"))
	if want := (Machine{Busy: 8100 * time.Millisecond, Idle: 45 * time.Second}); err != nil || m != want {
		t.Errorf("%+v, %v", m, err)
	}
	later := Machine{Busy: m.Busy + 3*time.Second, Idle: m.Idle + time.Second}
	if part := later.Since(m); part != 0.75 {
		t.Errorf("busy %v", part)
	}
	if part := m.Since(m); part != 0 {
		t.Errorf("busy %v in no time", part)
	}
	if _, err := parseMachine([]byte("intr 1 2 3")); err == nil {
		t.Error("another file is taken")
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
	if _, err := MachineNow(); err != nil {
		t.Error(err)
	}
	if n, err := RaiseFiles(100); err != nil || n < 100 {
		t.Errorf("%d files, %v", n, err)
	}
}
