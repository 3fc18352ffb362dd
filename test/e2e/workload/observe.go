package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sample is the content of the cgroup files at one moment.
type sample struct {
	Time       time.Time
	CPU        uint64 // nanoseconds so far
	WorkingSet uint64 // bytes
}

// observe writes the samples of one container as a JSON array when the time is over or the container has ended.
func observe(w http.ResponseWriter, r *http.Request, root string) error {
	id := r.FormValue("id")
	period, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		return err
	}
	if root == "" || id == "" {
		return errors.New("needs -cgroups and ?id=")
	}
	files, err := findCgroup(root, id)
	if err != nil {
		return err
	}
	samples := []sample{}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(period); time.Now().Before(end); {
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return nil
		}
		s, err := files.read()
		if err != nil {
			break // the container has ended
		}
		samples = append(samples, s)
	}
	return json.NewEncoder(w).Encode(samples)
}

// cgroup has the directories of one container's controllers, which are the same directory in
// version 2.
type cgroup struct {
	v2          bool
	cpu, memory string
}

// findCgroup looks for the directories that are named after a container.
func findCgroup(root, id string) (cgroup, error) {
	var c cgroup
	_, err := os.Stat(filepath.Join(root, "cgroup.controllers"))
	c.v2 = err == nil
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // cgroups come and go
		case !entry.IsDir() || !strings.Contains(entry.Name(), id):
			return nil
		}
		if _, err := os.Stat(filepath.Join(path, "cpuacct.usage")); err == nil || c.v2 {
			c.cpu = path
		}
		if _, err := os.Stat(filepath.Join(path, "memory.usage_in_bytes")); err == nil || c.v2 {
			c.memory = path
		}
		return fs.SkipDir
	})
	if err == nil && (c.cpu == "" || c.memory == "") {
		err = fmt.Errorf("no cgroup of container %s below %s", id, root)
	}
	return c, err
}

func (c cgroup) read() (sample, error) {
	if c.v2 {
		cpu, err1 := statField(c.cpu, "cpu.stat", "usage_usec")
		now := time.Now()
		used, err2 := number(c.memory, "memory.current")
		inactive, err3 := statField(c.memory, "memory.stat", "inactive_file")
		return sample{now, cpu * 1000, used - min(used, inactive)}, errors.Join(err1, err2, err3)
	}
	cpu, err1 := number(c.cpu, "cpuacct.usage")
	now := time.Now()
	used, err2 := number(c.memory, "memory.usage_in_bytes")
	inactive, err3 := statField(c.memory, "memory.stat", "total_inactive_file")
	return sample{now, cpu, used - min(used, inactive)}, errors.Join(err1, err2, err3)
}

func number(dir, file string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// statField returns the value of one line of a file of names and values.
func statField(dir, file, name string) (uint64, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseUint(value, 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}
