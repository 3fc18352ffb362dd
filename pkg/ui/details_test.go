package ui

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/cookiejar"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
	"metrics-server/pkg/sharedtest"
	"metrics-server/pkg/ui/cluster"
)

func TestNodeDetail(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	f.found(3, doctor.Line{Status: doctor.Problem, Nodes: []string{"n1"}})
	d := get[NodeDetail](f, "/api/nodes/n1")
	condition := Condition{Type: "Ready", Status: "True", Reason: "KubeletReady", Message: "it is"}
	if d.Name != "n1" || d.Status != "Ready" || *d.CPU.Capacity != 4 || len(d.Findings) != 1 || len(d.Addresses) != 1 ||
		len(d.Conditions) != 1 || d.Conditions[0] != condition {
		t.Errorf("%+v", d)
	}
}

// The server of metrics is asked why a pod that runs has no usage, and others are not.
func TestPodDetail(t *testing.T) { synctest.Test(t, testPodDetail) }

func testPodDetail(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	defer sharedtest.Start(t, t.Context(), func(ctx context.Context) error { f.pods.run(ctx); return nil })()
	synctest.Wait()
	d := get[PodDetail](f, "/api/pods/shop/web-1")
	if d.Error != "" || d.IP != "10.1.0.1" || len(d.Containers) != 1 || *d.Containers[0].CPU.Usage != 0.5 ||
		d.Containers[0].Name != "app" || d.Conditions == nil {
		t.Errorf("%+v", d)
	}
	if d := get[PodDetail](f, "/api/pods/team/job-1"); d.Error != "" {
		t.Errorf("a pod that has ended: %+v", d)
	}
	const target = "/api/pods/shop/web-2"
	tag := f.do("GET", target, nil).Header().Get("ETag")
	synctest.Wait()
	if w := f.do("GET", target, map[string]string{"If-None-Match": tag}); w.Code != 200 {
		t.Errorf("after the answer: %d", w.Code)
	}
	if d := get[PodDetail](f, target); d.Error != "web-2 has no sample" {
		t.Errorf("a pod without usage: %q", d.Error)
	}
}

func TestWorkloadDetail(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	d := get[WorkloadDetail](f, "/api/workloads/shop/Deployment/web")
	if d.Kind != "Deployment" || d.Pods != 2 || *d.HPA != "web" || *d.CPU.Usage != 0.5 || *d.CPU.Requests != 0.2 {
		t.Errorf("%+v", d)
	}
	none, unread := testSnapshot(), testSnapshot()
	none.Version, none.HPAs = 2, nil
	unread.Version, unread.HPAs = 3, nil
	unread.Sources = []cluster.Source{{Name: cluster.HPAs, State: cluster.Denied}}
	for _, tc := range []struct {
		snapshot *cluster.Snapshot
		want     *string
	}{{none, new("")}, {unread, nil}} {
		f.source.Store(tc.snapshot)
		if diff := cmp.Diff(tc.want, get[WorkloadDetail](f, "/api/workloads/shop/Deployment/web").HPA); diff != "" {
			t.Errorf("the autoscaler of a workload that has none, with sources %v: -want +got:\n%s", tc.snapshot.Sources, diff)
		}
	}
}

// A workload without pods may still exist: an autoscaler's target at zero replicas, or the job of a pod that has ended.
func TestWorkloadWithoutPods(t *testing.T) {
	f := newFixture(t, testSnapshot()).enter()
	const want = "Job team/job has no running or pending pods: it is scaled to zero, has ended, or was deleted"
	if got := f.problem("/api/workloads/team/Job/job", http.StatusNotFound).Error; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestHPADetail(t *testing.T) { synctest.Test(t, testHPADetail) }

func testHPADetail(t *testing.T) {
	snapshot := testSnapshot()
	snapshot.HPAs[1].Object.Status.Conditions = []autoscalingv2.HorizontalPodAutoscalerCondition{
		condition(autoscalingv2.AbleToScale, corev1.ConditionTrue, "it can"),
		condition(autoscalingv2.ScalingActive, corev1.ConditionFalse, "no metrics"),
	}
	f := newFixture(t, snapshot).enter()
	f.scalers = newExplainer(func(_ context.Context, of Object) (scalerReport, error) {
		if of.Namespace == "shop" {
			return scalerReport{}, errors.New("the API server does not answer")
		}
		return scalerReport{&hpa.Report{Schema: 1, Status: doctor.Warning}, "its text"}, nil
	})
	defer sharedtest.Start(t, t.Context(), func(ctx context.Context) error { f.scalers.run(ctx); return nil })()
	synctest.Wait()
	wait := func(target string) HPADetail {
		if d := get[HPADetail](f, target); d.Report != nil || d.ReportError != "" {
			t.Errorf("%s has a report at once", target)
		}
		synctest.Wait()
		return get[HPADetail](f, target)
	}
	d := wait("/api/hpas/team/web")
	if d.Report == nil || d.Report.Status != doctor.Warning || d.ReportText != "its text" || d.ReportError != "" {
		t.Errorf("the report: %+v, %q, %q", d.Report, d.ReportText, d.ReportError)
	}
	if d.Status != hpaInactive || !d.Bad || d.Reason != "no metrics" || len(d.Conditions) != 2 ||
		d.Conditions[1].Type != "ScalingActive" {
		t.Errorf("%+v", d)
	}
	if m := d.MetricHistory; len(m) != 1 || *m[0].Target != 60 || m[0].Unit != "%" {
		t.Errorf("metrics over time: %+v", m)
	}
	if d := wait("/api/hpas/shop/web"); d.Report != nil || d.ReportError != "the API server does not answer" {
		t.Errorf("without a report: %+v, %q", d.Report, d.ReportError)
	}
}

// An autoscaler whose metric has no target that the controller can use still has details.
func TestHPAWithoutTarget(t *testing.T) {
	snapshot := testSnapshot()
	m := &snapshot.HPAs[0].Metrics[0]
	m.Target, m.Current = math.NaN(), math.NaN()
	f := newFixture(t, snapshot).enter()
	d := get[HPADetail](f, "/api/hpas/shop/web")
	if d.MetricHistory[0].Target != nil || d.Metrics[0].Target != "none" || d.Metrics[0].Ratio != nil {
		t.Errorf("%+v, %+v", d.Metrics, d.MetricHistory)
	}
}

func TestHPAStatus(t *testing.T) {
	type conditions = []autoscalingv2.HorizontalPodAutoscalerCondition
	for name, tc := range map[string]struct {
		conditions conditions
		want       string
	}{
		"new":     {nil, "ok "},
		"active":  {conditions{condition("ScalingActive", "True", "fine")}, "ok "},
		"limited": {conditions{condition("ScalingLimited", "True", "max")}, "limited max"},
		"unable, and therefore nothing else": {conditions{
			condition("ScalingLimited", "True", "max"), condition("ScalingActive", "False", "no metrics"),
			condition("AbleToScale", "False", "no scale"),
		}, "unable no scale"},
	} {
		status, reason := hpaStatus(testHPA("a", "b", tc.conditions...).Object)
		if got := status + " " + reason; got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestAmounts(t *testing.T) {
	resource := func(name string, target autoscalingv2.MetricTargetType) cluster.Metric {
		return cluster.Metric{Type: autoscalingv2.ResourceMetricSourceType, Name: name, TargetType: target}
	}
	pods := cluster.Metric{Type: autoscalingv2.PodsMetricSourceType, TargetType: autoscalingv2.AverageValueMetricType}
	object := cluster.Metric{
		Type: autoscalingv2.ObjectMetricSourceType, Name: "requests", Object: "Service/web",
		TargetType: autoscalingv2.ValueMetricType,
	}
	for _, tc := range []struct {
		metric cluster.Metric
		target float64
		want   string
	}{
		{resource("cpu", autoscalingv2.UtilizationMetricType), 60, "60 %"},
		{resource("cpu", autoscalingv2.AverageValueMetricType), 0.5, "average 500m"},
		{resource("cpu", autoscalingv2.AverageValueMetricType), 2, "average 2"},
		{resource("memory", autoscalingv2.AverageValueMetricType), 100 << 20, "average 100Mi"},
		{resource("memory", autoscalingv2.AverageValueMetricType), 1.5 * (1 << 30), "average 1.5Gi"},
		{pods, 1000, "average 1k"},
		{pods, 0, "average 0"},
		{pods, math.NaN(), "none"},
		{object, 12.3456, "12.346"},
		{object, 0.25, "250m"},
		{object, 2.5e6, "2.5M"},
		{object, -5, "-5"},
	} {
		tc.metric.Target = tc.target
		if got := targetText(tc.metric); got != tc.want {
			t.Errorf("%+v: %q, want %q", tc.metric, got, tc.want)
		}
	}
	container := cluster.Metric{Name: "cpu", Container: "app"}
	if diff := cmp.Diff([]string{"cpu of container app", "requests of Service/web", "cpu"},
		[]string{nameOf(container), nameOf(object), nameOf(resource("cpu", ""))}); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Run serves what the URL leads to, and ends with its context.
func TestRun(t *testing.T) {
	f := newFixture(t, testSnapshot())
	f.findings.examine = func(context.Context) (examined, error) { return examined{}, nil }
	stop := sharedtest.Start(t, t.Context(), f.Run)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	fetch := func(url string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.Status + " " + string(body)
	}
	if got := fetch(f.URL()); !strings.HasPrefix(got, "200 OK <!doctype html>") {
		t.Errorf("%s: %s", f.URL(), got)
	}
	if got := fetch("http://" + f.host + "/api/nodes/n1"); !strings.HasPrefix(got, `200 OK {"kind":"Node","name":"n1"`) {
		t.Error(got)
	}
	browser.CloseIdleConnections()
	stop()
	if _, err := browser.Get(f.URL()); err == nil { //nolint:bodyclose // there is no answer
		t.Error("it answers after its end")
	}
}
