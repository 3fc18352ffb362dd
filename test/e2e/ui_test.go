//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// page is `metrics-server ui`, as the browser that was let in sees it.
type page struct {
	t       *testing.T
	url     *url.URL
	browser http.Client
}

// openPage starts `metrics-server ui` until the end of the test, and checks how it ends.
func openPage(t *testing.T) *page {
	t.Helper()
	cmd := exec.Command(serverBinary(), "ui")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("metrics-server ui, interrupted: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("metrics-server ui printed %q: %v", line, err)
	}
	p := &page{t: t}
	if p.browser.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	if p.url, err = url.Parse(strings.TrimSpace(line)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.get(p.url); err != nil { // the token lets the browser in
		t.Fatal(err)
	}
	return p
}

func (p *page) get(u *url.URL) ([]byte, error) {
	request, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := p.browser.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", u, response.Status, body)
	}
	return body, err
}

// read decodes an answer of the page's API.
func (p *page) read(answer any, path, query string) error {
	body, err := p.get(&url.URL{Scheme: p.url.Scheme, Host: p.url.Host, Path: "/api/" + path, RawQuery: query})
	if err != nil {
		return err
	}
	return json.Unmarshal(body, answer)
}

// row has the parts of a row of the page that this test checks.
type row struct {
	Name    string
	Sampled *time.Time
	CPU     struct{ Usage *float64 }
	Memory  struct{ Usage *float64 }
	Error   string
	Current int
	Target  struct{ Kind, Name string }
}

// TestUI checks what a browser gets from `metrics-server ui`: everything by watches, with the numbers that the API
// serves, and an autoscaler that scales.
func TestUI(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	createWeb(t, ns, "10m")
	p := openPage(t)
	eventually(t, "everything is watched", func() error {
		var status struct {
			Sources []struct{ Name, State, Error string }
		}
		if err := p.read(&status, "status", ""); err != nil {
			return err
		}
		watched := 0
		for _, s := range status.Sources {
			if s.State == "watching" {
				watched++
			} else if s.Name != "history" {
				return fmt.Errorf("%+v", s)
			}
		}
		if watched != 5 {
			return fmt.Errorf("%d sources are watched, want 5: %+v", watched, status.Sources)
		}
		return nil
	})
	eventually(t, "the page has the usage of every node", func() error {
		list, err := cluster.metrics.MetricsV1().NodeMetricses().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var table struct{ Rows []row }
		if err := p.read(&table, "nodes", "count=200"); err != nil {
			return err
		}
		for _, m := range list.Items {
			if err := shows(table.Rows, m.Name, m.Timestamp, m.Usage); err != nil {
				return err
			}
		}
		return nil
	})

	hold(t, ns, 40)
	createHPA(t, ns, "web", 3, average(corev1.ResourceMemory, "25Mi"))
	waitReplicas(t, ns, "web", 2, 2)
	eventually(t, "the page has both pods and their usage", func() error {
		list, err := cluster.metrics.MetricsV1().PodMetricses(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var table struct{ Rows []row }
		if err := p.read(&table, "pods", "count=200&namespace="+ns); err != nil {
			return err
		}
		if len(list.Items) != 2 || len(table.Rows) != 2 {
			return fmt.Errorf("the API has %d pods and the page has %d, want 2", len(list.Items), len(table.Rows))
		}
		for _, m := range list.Items {
			if err := shows(table.Rows, m.Name, m.Timestamp, m.Containers[0].Usage); err != nil {
				return err
			}
		}
		return nil
	})
	eventually(t, "the page explains why the autoscaler has scaled", func() error {
		var detail struct {
			row
			ReportText, ReportError string
		}
		if err := p.read(&detail, "hpas/"+ns+"/web", ""); err != nil {
			return err
		}
		if detail.Current != 2 || detail.Target.Kind != "Deployment" || detail.Target.Name != "web" ||
			detail.ReportError != "" || !strings.Contains(detail.ReportText, "\nDecision\n") {
			return fmt.Errorf("%+v", detail)
		}
		return nil
	})
	eventually(t, "the doctor has run for the page", func() error {
		var status struct {
			Findings struct {
				Checked *time.Time
				Error   string
			}
		}
		if err := p.read(&status, "status", ""); err != nil {
			return err
		}
		if status.Findings.Checked == nil || status.Findings.Error != "" {
			return fmt.Errorf("%+v", status.Findings)
		}
		return nil
	})
}

// shows returns an error unless rows show the usage that the API has for an object with one container, or a node.
func shows(rows []row, name string, sampled metav1.Time, usage corev1.ResourceList) error {
	i := slices.IndexFunc(rows, func(r row) bool { return r.Name == name })
	if i < 0 {
		return fmt.Errorf("the page does not show %s", name)
	}
	r := rows[i]
	if r.Sampled == nil || !r.Sampled.Equal(sampled.Time) || r.CPU.Usage == nil || r.Memory.Usage == nil {
		return fmt.Errorf("the page shows %s with a usage of %v (%q), want that of %v", name, r.Sampled, r.Error, sampled)
	}
	cpu, memory := usage.Cpu().AsApproximateFloat64(), usage.Memory().AsApproximateFloat64()
	if math.Abs(*r.CPU.Usage-cpu) > 1e-6 || *r.Memory.Usage != memory {
		return fmt.Errorf("the page shows %s with %v cores and %v bytes, want %v and %v", name, *r.CPU.Usage,
			*r.Memory.Usage, cpu, memory)
	}
	return nil
}
