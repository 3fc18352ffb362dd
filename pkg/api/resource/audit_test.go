package resource

import (
	"net/http"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// answers is an audit backend that keeps the answers that are to be logged.
type answers struct{ bodies []string }

func (a *answers) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, e := range events {
		if e.ResponseObject != nil {
			a.bodies = append(a.bodies, string(e.ResponseObject.Raw))
		}
	}
	return true
}

func (a *answers) Run(<-chan struct{}) error { return nil }
func (a *answers) Shutdown()                 {}
func (a *answers) String() string            { return "test" }

// TestAudit checks that the audit log shows responses as the generic server would have written them.
func TestAudit(t *testing.T) {
	c := newCluster()
	logged := func(before func(http.Handler) http.Handler) *answers {
		served, log := c.config(), &answers{}
		served.Registerer = nil
		h := c.handlerOf(t, served, before, func(config *genericapiserver.Config) {
			config.AuditBackend = log
			config.AuditPolicyRuleEvaluator = policy.NewFakePolicyRuleEvaluator(auditinternal.LevelRequestResponse, nil)
		})
		for _, path := range []string{
			"v1/namespaces/a/pods/web-1", "v1beta1/pods?labelSelector=app%3Dweb", "v1/nodes", "v1/nodes/none",
		} {
			answer(t, h, group+path, runtime.ContentTypeProtobuf, "")
		}
		return log
	}
	got := logged(withEngine)
	want := logged(withoutEngine)
	if d := gocmp.Diff(want.bodies, got.bodies); d != "" || len(got.bodies) != 4 {
		t.Errorf("%d answers were logged (-want +got):\n%s", len(got.bodies), d)
	}
}
