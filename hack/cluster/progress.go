package main

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// progress shows on standard error what is being waited for. On a terminal it is one line that
// counts the seconds. In a log it is a line at the end, and one for every half minute without news.
type progress struct {
	mu       sync.Mutex
	terminal bool
	title    string
	detail   string
	start    time.Time
	printed  time.Time
	stop     chan struct{}
	done     sync.WaitGroup
}

// sayf prints a line of its own.
func sayf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// begin starts to show title. End it with end.
func begin(title string) *progress {
	p := &progress{title: title, start: time.Now(), printed: time.Now(), stop: make(chan struct{})}
	if info, err := os.Stderr.Stat(); err == nil {
		p.terminal = info.Mode()&os.ModeCharDevice != 0
	}
	p.done.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
				p.show()
			}
		}
	})
	return p
}

// updatef replaces the detail after the title, such as what the wait is for.
func (p *progress) updatef(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.detail = fmt.Sprintf(format, args...)
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	elapsed := time.Since(p.start)
	switch {
	case p.terminal:
		line := fmt.Sprintf("  %-34s %6.1fs  %s", p.title, elapsed.Seconds(), p.detail)
		fmt.Fprintf(os.Stderr, "\r\033[K%.100s", line) // a longer line would wrap and could not be taken back
	case time.Since(p.printed) > 30*time.Second:
		sayf("  %-34s %6.1fs so far  %s", p.title, elapsed.Seconds(), p.detail)
		p.printed = time.Now()
	}
}

// end shows how it ended.
func (p *progress) end(err error) {
	close(p.stop)
	p.done.Wait()
	if p.terminal {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
	result := ""
	if err != nil {
		result = "  failed"
	}
	sayf("  %-34s %6.1fs%s", p.title, time.Since(p.start).Seconds(), result)
}

// step shows title while f runs.
func step(title string, f func(*progress) error) error {
	p := begin(title)
	err := f(p)
	p.end(err)
	return err
}
