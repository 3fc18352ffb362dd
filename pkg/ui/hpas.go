package ui

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/doctor/hpa"
	"metrics-server/pkg/ui/cluster"
)

// scalerReport is the output of metrics-server doctor hpa for an autoscaler.
type scalerReport struct {
	*hpa.Report
	text string
}

func (c *Config) explain(ctx context.Context, scaler Object) (scalerReport, error) {
	r, err := hpa.Run(ctx, hpa.Config{
		Rest: c.Rest, Version: c.Version, Namespace: scaler.Namespace, Name: scaler.Name, File: c.File,
	})
	if err != nil {
		return scalerReport{}, err
	}
	var b strings.Builder
	err = r.WriteText(&b)
	return scalerReport{r, b.String()}, err
}

// The states of an autoscaler.
const (
	hpaOK       = "ok"
	hpaLimited  = "limited"
	hpaInactive = "inactive"
	hpaUnable   = "unable"
)

var hpaTable = table[cluster.HPA, HPARow]{
	name: "hpas", source: cluster.HPAs, sort: "name",
	objects:   func(s *state) []*cluster.HPA { return s.snapshot.HPAs },
	namespace: func(h *cluster.HPA) string { return h.Object.Namespace },
	texts: func(h *cluster.HPA) texts {
		status, _ := hpaStatus(h.Object)
		target := targetOf(h)
		return texts{names: [3]string{h.Object.Name, target.Namespace, target.Name}, other: [2]string{status, target.Kind}}
	},
	problem: func(s *state, h *cluster.HPA) bool {
		status, _ := hpaStatus(h.Object)
		return badHPA(status) || len(hpaFindings(s, h)) > 0
	},
	row: hpaRow,
	columns: map[string]column[cluster.HPA]{
		"name":      text(func(h *cluster.HPA) string { return h.Object.Name }),
		"namespace": text(func(h *cluster.HPA) string { return h.Object.Namespace }),
		"target":    text(func(h *cluster.HPA) string { return h.Object.Spec.ScaleTargetRef.Name }),
		"status":    text(func(h *cluster.HPA) string { status, _ := hpaStatus(h.Object); return status }),
		"findings":  about(hpaFindings),
		"current":   count(func(h *cluster.HPA) int { return int(h.Object.Status.CurrentReplicas) }),
		"desired":   count(func(h *cluster.HPA) int { return int(h.Object.Status.DesiredReplicas) }),
		"ratio":     {number: func(_ *state, h *cluster.HPA) float64 { return highestRatio(h) }},
	},
}

func hpaObject(namespace, name string) Object { return doctor.Autoscaler(namespace, name) }

func objectOf(h *cluster.HPA) Object { return hpaObject(h.Object.Namespace, h.Object.Name) }

func targetOf(h *cluster.HPA) Object {
	t := h.Object.Spec.ScaleTargetRef
	return Object{Kind: t.Kind, Namespace: h.Object.Namespace, Name: t.Name}
}

func hpaFindings(s *state, h *cluster.HPA) []int { return s.diagnosis.of(objectOf(h)) }

// highestRatio returns the highest ratio of a metric to its target; NaN if no metric has a value.
func highestRatio(h *cluster.HPA) float64 {
	highest := math.NaN()
	for _, m := range h.Metrics {
		if r := m.Ratio(); !(r <= highest) && !math.IsNaN(r) {
			highest = r
		}
	}
	return highest
}

// hpaStatus returns the state of an autoscaler, and the message of the condition that it is from.
func hpaStatus(o *autoscalingv2.HorizontalPodAutoscaler) (status, reason string) {
	for _, s := range []struct {
		condition autoscalingv2.HorizontalPodAutoscalerConditionType
		value     corev1.ConditionStatus
		status    string
	}{
		{autoscalingv2.AbleToScale, corev1.ConditionFalse, hpaUnable},
		{autoscalingv2.ScalingActive, corev1.ConditionFalse, hpaInactive},
		{autoscalingv2.ScalingLimited, corev1.ConditionTrue, hpaLimited},
	} {
		for _, c := range o.Status.Conditions {
			if c.Type == s.condition && c.Status == s.value {
				return s.status, c.Message
			}
		}
	}
	return hpaOK, ""
}

func badHPA(status string) bool { return status == hpaInactive || status == hpaUnable }

func hpaRow(s *state, h *cluster.HPA) HPARow {
	o := h.Object
	r := HPARow{
		Object: objectOf(h), Target: targetOf(h), Min: 1, Max: o.Spec.MaxReplicas, Current: o.Status.CurrentReplicas,
		Desired: o.Status.DesiredReplicas, Metrics: []HPAMetric{}, Findings: hpaFindings(s, h),
		CurrentHistory: series(s.snapshot.Series(h.Past, cluster.Current, shortHistory)),
	}
	if o.Spec.MinReplicas != nil {
		r.Min = *o.Spec.MinReplicas
	}
	r.Status, r.Reason = hpaStatus(o)
	r.Bad = badHPA(r.Status)
	for _, m := range h.Metrics {
		r.Metrics = append(r.Metrics, HPAMetric{
			Type: string(m.Type), Name: nameOf(m), Target: targetText(m), Current: amount(m, m.Current),
			Ratio: known(m.Ratio()),
		})
	}
	return r
}

func nameOf(m cluster.Metric) string {
	switch {
	case m.Container != "":
		return m.Name + " of container " + m.Container
	case m.Object != "":
		return m.Name + " of " + m.Object
	}
	return m.Name
}

// unitOf returns the unit of a metric's target and its values.
func unitOf(m cluster.Metric) string {
	if m.TargetType == autoscalingv2.UtilizationMetricType {
		return "%"
	}
	if m.Type == autoscalingv2.ResourceMetricSourceType || m.Type == autoscalingv2.ContainerResourceMetricSourceType {
		if m.Name == string(corev1.ResourceCPU) {
			return "cores"
		}
		return "bytes"
	}
	return ""
}

// amount formats a value of a metric; "" if it is not known.
func amount(m cluster.Metric, value float64) string {
	if math.IsNaN(value) {
		return ""
	}
	switch unitOf(m) {
	case "%":
		return fmt.Sprintf("%.0f %%", value)
	case "bytes":
		return scaled(value, 1024, []string{"", "Ki", "Mi", "Gi", "Ti"})
	case "cores":
		return scaled(value*1000, 1000, []string{"m", ""})
	}
	return scaled(value*1000, 1000, []string{"m", "", "k", "M", "G"})
}

func targetText(m cluster.Metric) string {
	switch {
	case math.IsNaN(m.Target):
		return "none"
	case m.TargetType == autoscalingv2.AverageValueMetricType:
		return "average " + amount(m, m.Target)
	}
	return amount(m, m.Target)
}

// scaled writes x with the first of units in which it is less than base, with at most three digits after the point.
func scaled(x, base float64, units []string) string {
	i := 0
	for i < len(units)-1 && math.Abs(x) >= base {
		x /= base
		i++
	}
	if x == 0 {
		return "0"
	}
	return strconv.FormatFloat(math.Round(x*1000)/1000, 'f', -1, 64) + units[i]
}
