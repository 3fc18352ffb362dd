package hpa

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/doctor"
	"metrics-server/pkg/kubeapi"
)

const adapter = "monitoring/prometheus-adapter"

// TestCustomVersion checks that custom.metrics.k8s.io is asked in the version that the controller asks. The API server
// serves only registered versions that are available.
func TestCustomVersion(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*fakeCluster)
		want   string
		found  []doctor.Line // all that are not OK
	}{
		"both": {func(*fakeCluster) {}, "v1beta2", nil},
		"only v1beta1": {
			func(c *fakeCluster) { delete(c.objects, pathCustom) }, "v1beta1",
			[]doctor.Line{{Check: checkAPIService, Status: doctor.Warning, Cause: "incomplete"}},
		},
		"only v1beta1, as prometheus-adapter's chart registers it": {
			func(c *fakeCluster) {
				delete(c.objects, pathCustom)
				c.objects[pathCustom1] = registered("v1beta1", adapter)
			}, "v1beta1",
			[]doctor.Line{{Check: checkAPIService, Status: doctor.Warning, Cause: "which does not register the other version"}},
		},
		"v1beta2 of a program that is gone": {
			func(c *fakeCluster) { c.objects[pathCustom] = unavailable("v1beta2", adapter) }, "v1beta1",
			[]doctor.Line{
				{Check: checkAPIService, Status: doctor.Problem, Message: "is not available"},
				{
					Check: checkAPIService, Status: doctor.Problem, Message: "and v1beta1.custom.metrics.k8s.io to",
					Cause: "the controller requests v1beta1.custom.metrics.k8s.io",
				},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.objects[pathValue1] = c.objects[pathValue]
			c.notes = &kubeapi.Notes{}
			tc.change(c)
			r := c.run()
			checkFindings(t, r, tc.found)
			m := r.Autoscaler.Metrics[0]
			if !strings.HasPrefix(m.Request, customRoot+"/"+tc.want+"/") || m.Calculation == nil {
				t.Errorf("want a request of %s with an answer in\n%s", tc.want, text(t, r))
			}
			_, err := Run(t.Context(), Config{Rest: &rest.Config{Host: c.host}})
			if err != nil {
				t.Fatal(err)
			}
			states := 0
			for _, request := range c.requests {
				if !strings.HasSuffix(request, "/doctor") {
					continue
				}
				if states++; !strings.HasPrefix(request, customRoot+"/"+tc.want+"/") {
					t.Errorf("the state of the server is requested at %s, want %s", request, tc.want)
				}
			}
			if want := !strings.Contains(name, "prometheus-adapter"); (states == 1) != want || states > 1 {
				t.Errorf("the state of the server is requested %d times; want once, or never of another program", states)
			}
		})
	}
}

// TestRenamedService checks that the custom metrics server is known by its discovery document, whatever its Service is
// called.
func TestRenamedService(t *testing.T) {
	c := newCluster(t)
	for version, path := range map[string]string{"v1beta1": pathCustom1, "v1beta2": pathCustom} {
		c.objects[path] = registered(version, "monitoring/shop-custom-metrics")
	}
	c.discovered = kubeapi.AnyResource
	r := c.run()
	if r.Status != doctor.OK || len(r.Autoscaler.Metrics[0].Pages) != 3 {
		t.Errorf("not recognized:\n%s", text(t, r))
	}
	// The name of an adapter's Service can look like ours.
	c.objects[pathCustom] = registered("v1beta2", "monitoring/shop-custom-metrics-server")
	c.objects[pathCustom1] = registered("v1beta1", "monitoring/shop-custom-metrics-server")
	c.discovered = "pods/packets-per-second"
	r = c.run()
	checkFindings(t, r, []doctor.Line{{
		Check: checkAPIService, Status: doctor.Warning, Message: "shop-custom-metrics-server, which does not look",
	}})
	// Without a discovery document, the name decides.
	c.refuse(customRoot+"/v1beta2", 403, metav1.StatusReasonForbidden, "no right")
	if r = c.run(); r.Status != doctor.OK {
		t.Errorf("not recognized by its name:\n%s", text(t, r))
	}
}
