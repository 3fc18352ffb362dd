// Package proc reads statistics of processes and of the machine from /proc.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Memory is the memory of a process, in bytes. Anonymous is the part of RSS that is not backed by a
// file. Pages of the program's file are in RSS too, but the kernel can drop them, and a container's
// working set does not count them until they are used again and again.
type Memory struct{ RSS, Anonymous, Peak int64 }

// CPU returns the CPU time that a process used so far. It is exact to the microsecond where the
// kernel allows reading the process's clock; otherwise to a hundredth of a second, from its stat
// file.
func CPU(pid int) (time.Duration, error) {
	var t unix.Timespec
	// The clock ID that clock_getcpuclockid returns.
	if err := unix.ClockGettime(^int32(pid)<<3|2, &t); err == nil {
		return time.Duration(t.Nano()), nil
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// ticks is the number of clock ticks per second, which is the same on every architecture.
const ticks = 100

// parseStat returns the CPU time of a process's stat file.
func parseStat(b []byte) (time.Duration, error) {
	// The name may have spaces and brackets in it.
	_, rest, ok := cutLast(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("%q is not a stat file", b)
	}
	var sum uint64
	for _, s := range f[11:13] { // utime and stime
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// MemoryOf returns the memory of a process, now and at its peak.
func MemoryOf(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	return parseStatus(b)
}

// parseStatus returns the memory of a process's status file.
func parseStatus(b []byte) (Memory, error) {
	var m Memory
	for line := range bytes.Lines(b) {
		name, value, _ := strings.Cut(string(line), ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &m.RSS
		case "RssAnon":
			to = &m.Anonymous
		case "VmHWM":
			to = &m.Peak
		default:
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, err
		}
		*to = n << 10
	}
	if m.RSS == 0 {
		return m, errors.New("the process has no memory: it has ended")
	}
	return m, nil
}

// ResetPeak resets the peak of a process's memory.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// Files returns how many files a process has open.
func Files(pid int) (int, error) { return entries(fmt.Sprintf("/proc/%d/fd", pid)) }

// Threads returns how many threads a process has.
func Threads(pid int) (int, error) { return entries(fmt.Sprintf("/proc/%d/task", pid)) }

func entries(dir string) (int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	return len(names), err
}

// Machine is the time that all processors together have spent so far.
type Machine struct{ Busy, Idle time.Duration }

// MachineNow reads the current values.
func MachineNow() (Machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return parseMachine(b)
}

// parseMachine parses /proc/stat.
func parseMachine(b []byte) (Machine, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return Machine{}, fmt.Errorf("%q is not the first line of /proc/stat", line)
	}
	var m Machine
	for i, s := range f[1:9] { // the fields that follow are part of these
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return m, err
		}
		d := time.Duration(n) * time.Second / ticks
		if i == 3 || i == 4 { // idle, and idle while waiting for disks
			m.Idle += d
		} else {
			m.Busy += d // stolen time, too: it was not ours
		}
	}
	return m, nil
}

// Since returns the fraction of the time since before in which the processors were busy, from 0 to
// 1.
func (m Machine) Since(before Machine) float64 {
	busy, idle := m.Busy-before.Busy, m.Idle-before.Idle
	if busy+idle <= 0 {
		return 0
	}
	return float64(busy) / float64(busy+idle)
}

// RaiseFiles raises the limit of open files of this process and its children as far as allowed, and
// returns it. An administrator may raise it to want.
func RaiseFiles(want uint64) (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if l.Cur < want {
		raised := syscall.Rlimit{Cur: want, Max: max(want, l.Max)}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) != nil {
			raised = syscall.Rlimit{Cur: min(want, l.Max), Max: l.Max}
			if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
				return l.Cur, err
			}
		}
		l = raised
	}
	return l.Cur, nil
}
