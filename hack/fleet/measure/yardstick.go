package measure

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"metrics-server/pkg/kubelet/kubelettest"
)

// YardstickArgument is the first argument of a process that measures the yardstick, before the time between two
// answers: main calls YardstickMain for it.
const YardstickArgument = "yardstick"

// YardstickMain writes to out how many nanoseconds of CPU the Prometheus parser needs for the
// answer that is read from in: in a loop, and once in each interval. It runs in a process of its
// own, in which nothing else uses CPU or fills the heap.
func YardstickMain(in io.Reader, out io.Writer, pace string) error {
	interval, err := time.ParseDuration(pace)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	parse := func(n int, pause time.Duration) (time.Duration, error) {
		before := used()
		for range n {
			p := expfmt.NewTextParser(model.LegacyValidation)
			if _, err := p.TextToMetricFamilies(bytes.NewReader(answer)); err != nil {
				return 0, err
			}
			time.Sleep(pause)
		}
		return (used() - before) / time.Duration(n), nil
	}
	const warm, rounds = 200, 1000
	if _, err := parse(warm, 0); err != nil {
		return err
	}
	loop, err := parse(rounds, 0)
	if err != nil {
		return err
	}
	paced, err := parse(int(min(max(5*time.Second/interval, 20), 500)), interval)
	fmt.Fprintln(out, loop.Nanoseconds(), paced.Nanoseconds())
	return err
}

// used returns the CPU time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// yardstick measures how much CPU the Prometheus parser needs for an answer of this fleet.
func (r *run) yardstick(ctx context.Context) error {
	r.say("yardstick")
	nodes, _ := r.cluster.Nodes()
	node := kubelettest.NewNode(kubelettest.NodeConfig{
		Seed: nodes[0].Seed, Boot: nodes[0].Boot, List: r.cluster.On(nodes[0].Machine),
	})
	path, err := os.Executable()
	if err != nil {
		return err
	}
	interval := time.Duration(float64(time.Second) / r.report.Steady.ScrapesPerSecond)
	cmd := exec.CommandContext(ctx, path, YardstickArgument, interval.String())
	cmd.Stdin = bytes.NewReader(node.Append(nil, time.Now()))
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("yardstick: %w", err)
	}
	var loop, paced int64
	if _, err := fmt.Sscan(string(out), &loop, &paced); err != nil {
		return fmt.Errorf("yardstick: %w", err)
	}
	y := &r.report.Yardstick
	y.CPU, y.Paced = micros(time.Duration(loop)), micros(time.Duration(paced))
	y.Ratio, y.PacedRatio = r.report.Steady.CPUPerScrape/y.CPU, r.report.Steady.CPUPerScrape/y.Paced
	return nil
}
