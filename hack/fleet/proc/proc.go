// Package proc reads statistics of processes and of the machine from /proc.
package proc

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// Memory is the memory of a process, in bytes. Anonymous is the part of RSS that is not backed by a
// file. Pages of the program's file are in RSS too, but the kernel can drop them, and a container's
// working set does not count them until they are used again and again.
type Memory struct{ RSS, Anonymous, Peak int64 }

// CPU returns the CPU time that a process used so far. It is exact to the microsecond where the
// kernel allows reading the process's clock; otherwise to a hundredth of a second.
func CPU(pid int) (time.Duration, error) {
	var t unix.Timespec
	// The clock ID that clock_getcpuclockid returns.
	if err := unix.ClockGettime(^int32(pid)<<3|2, &t); err == nil {
		return time.Duration(t.Nano()), nil
	}
	stat, err := statOf(pid)
	return seconds(stat.CPUTime()), err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func statOf(pid int) (procfs.ProcStat, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStat{}, err
	}
	return p.Stat()
}

// MemoryOf returns the memory of a process, now and at its peak.
func MemoryOf(pid int) (Memory, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return Memory{}, err
	}
	s, err := p.NewStatus()
	if err == nil && s.VmRSS == 0 {
		err = errors.New("the process has no memory: it has ended")
	}
	return Memory{RSS: int64(s.VmRSS), Anonymous: int64(s.RssAnon), Peak: int64(s.VmHWM)}, err
}

// ResetPeak resets the peak of a process's memory.
func ResetPeak(pid int) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0)
}

// Files returns how many files a process has open.
func Files(pid int) (int, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, err
	}
	return p.FileDescriptorsLen()
}

// Threads returns how many threads a process has.
func Threads(pid int) (int, error) {
	stat, err := statOf(pid)
	return stat.NumThreads, err
}

// Machine is the time that all processors together have spent so far.
type Machine struct{ Busy, Idle time.Duration }

// MachineNow reads the current values.
func MachineNow() (Machine, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Machine{}, err
	}
	stat, err := fs.Stat()
	c := stat.CPUTotal
	return Machine{
		Busy: seconds(c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal), // stolen time, too: it was not ours
		Idle: seconds(c.Idle + c.Iowait),
	}, err
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
