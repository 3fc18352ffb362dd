package hpa

import (
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// limited is a proposal after the limits were applied.
type limited struct {
	replicas int32
	steps    []string // what limited it
	unknown  []string // limits that only the controller knows, and that may apply in addition
	capped   bool     // by maxReplicas
}

// limit applies minReplicas, maxReplicas and the scaling policies to a proposal, as far as they can be known from
// outside. last is when the replicas were changed for the last time.
func limit(spec *autoscalingv2.HorizontalPodAutoscalerSpec, current, proposed int32, last, now time.Time) limited {
	l := limited{replicas: proposed}
	least, most := minReplicas(spec), spec.MaxReplicas
	if proposed > current {
		allowed, rule, period := upLimit(spec.Behavior, current)
		if proposed > allowed && allowed < most {
			l.replicas = allowed
			l.steps = append(l.steps, fmt.Sprintf("one scale-up may reach at most %d replicas: %s", allowed, rule))
		}
		l.recent(period, last, now)
		if w := window(spec.Behavior, true); w > 0 {
			l.unknown = append(l.unknown, fmt.Sprintf("scale-up is stabilized over %v: the lowest recommendation of that time "+
				"counts, and only the controller knows the past ones", w))
		}
	}
	if spec.Behavior == nil && current <= proposed && proposed < most && now.Sub(last) < defaultDownscale {
		l.unknown = append(l.unknown, fmt.Sprintf("the highest recommendation of the last %v (the default of the "+
			"controller's --horizontal-pod-autoscaler-downscale-stabilization) counts, and only the controller knows the "+
			"past ones: it may scale up further", defaultDownscale))
	}
	if proposed < current {
		if spec.Behavior != nil {
			allowed, rule, period := downLimit(spec.Behavior, current)
			if proposed < allowed && allowed > least {
				l.replicas = allowed
				l.steps = append(l.steps, fmt.Sprintf("one scale-down may go to no fewer than %d replicas: %s", allowed, rule))
			}
			l.recent(period, last, now)
		}
		if w := window(spec.Behavior, false); w > 0 {
			text := fmt.Sprintf("scale-down is stabilized over %v: the highest recommendation of that time counts, and only "+
				"the controller knows the past ones", w)
			if !ownWindow(spec.Behavior) {
				text += " (the window is the default of its --horizontal-pod-autoscaler-downscale-stabilization)"
			}
			l.unknown = append(l.unknown, text)
		}
	}
	switch {
	case l.replicas > most:
		l.replicas, l.capped = most, true
		l.steps = append(l.steps, fmt.Sprintf("maxReplicas limits it to %d", most))
	case l.replicas < least:
		l.replicas = least
		l.steps = append(l.steps, fmt.Sprintf("minReplicas raises it to %d", least))
	}
	return l
}

func minReplicas(spec *autoscalingv2.HorizontalPodAutoscalerSpec) int32 {
	if spec.MinReplicas != nil {
		return *spec.MinReplicas
	}
	return 1
}

// recent adds that changes within a policy's period count against it.
func (l *limited) recent(period time.Duration, last, now time.Time) {
	if period > 0 && now.Sub(last) < period {
		l.unknown = append(l.unknown, fmt.Sprintf("the replicas were changed within the last %v, which counts against the "+
			"scaling policies: only the controller knows by how much", period))
	}
}

func window(b *autoscalingv2.HorizontalPodAutoscalerBehavior, up bool) time.Duration {
	var rules *autoscalingv2.HPAScalingRules
	fallback := time.Duration(0)
	if b != nil && up {
		rules = b.ScaleUp
	}
	if !up {
		fallback = defaultDownscale
		if b != nil {
			rules = b.ScaleDown
		}
	}
	if rules == nil || rules.StabilizationWindowSeconds == nil {
		return fallback
	}
	return time.Duration(*rules.StabilizationWindowSeconds) * time.Second
}

func ownWindow(b *autoscalingv2.HorizontalPodAutoscalerBehavior) bool {
	return b != nil && b.ScaleDown != nil && b.ScaleDown.StabilizationWindowSeconds != nil
}

// upLimit returns how many replicas one scale-up may reach if there was no other one within the period, and the rule
// that says so.
func upLimit(b *autoscalingv2.HorizontalPodAutoscalerBehavior, current int32) (int32, string, time.Duration) {
	if b == nil {
		return max(2*current, 4), "twice the current ones, and at least 4", 0
	}
	return policyLimit(withDefaults(b.ScaleUp,
		autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PodsScalingPolicy, Value: 4, PeriodSeconds: 15},
		autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	), "scaleUp", current, +1)
}

// downLimit is upLimit for a scale-down.
func downLimit(b *autoscalingv2.HorizontalPodAutoscalerBehavior, current int32) (int32, string, time.Duration) {
	return policyLimit(withDefaults(b.ScaleDown,
		autoscalingv2.HPAScalingPolicy{Type: autoscalingv2.PercentScalingPolicy, Value: 100, PeriodSeconds: 15},
	), "scaleDown", current, -1)
}

// withDefaults returns rules, with the given policies, the defaults of the API server, if they have
// none.
func withDefaults(rules *autoscalingv2.HPAScalingRules, policies ...autoscalingv2.HPAScalingPolicy,
) *autoscalingv2.HPAScalingRules {
	if rules == nil {
		rules = &autoscalingv2.HPAScalingRules{}
	}
	if len(rules.Policies) > 0 {
		return rules
	}
	return &autoscalingv2.HPAScalingRules{SelectPolicy: rules.SelectPolicy, Policies: policies}
}

func policyLimit(rules *autoscalingv2.HPAScalingRules, field string, current, sign int32,
) (allowed int32, rule string, period time.Duration) {
	selected := autoscalingv2.MaxChangePolicySelect
	if rules.SelectPolicy != nil {
		selected = *rules.SelectPolicy
	}
	if selected == autoscalingv2.DisabledPolicySelect {
		return current, "behavior." + field + ".selectPolicy is Disabled", 0
	}
	first := true
	for _, p := range rules.Policies {
		period = max(period, time.Duration(p.PeriodSeconds)*time.Second)
		n := current + sign*p.Value
		text := fmt.Sprintf("behavior.%s allows %d pods in %d s", field, p.Value, p.PeriodSeconds)
		if p.Type == autoscalingv2.PercentScalingPolicy {
			share := float64(current) * (1 + float64(sign)*float64(p.Value)/100)
			n = int32(share)
			if sign > 0 {
				n = int32(math.Ceil(share))
			}
			text = fmt.Sprintf("behavior.%s allows %d %% in %d s", field, p.Value, p.PeriodSeconds)
		}
		larger := (n-allowed)*sign > 0
		if first || larger == (selected == autoscalingv2.MaxChangePolicySelect) && n != allowed {
			allowed, rule, first = n, text, false
		}
	}
	return allowed, rule, period
}
