package metricgroup_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"

	"metrics-server/pkg/api"
	"metrics-server/pkg/api/custom"
	"metrics-server/pkg/api/external"
)

// at is the time of all values.
var at = time.Date(2026, 11, 29, 10, 0, 0, 700_000_000, time.UTC)

// serve serves both groups. The user "nobody" may do nothing.
func serve(t *testing.T, v *fixed) *rest.Config {
	t.Helper()
	groups := []*api.Group{custom.Group, external.Group}
	config := genericapiserver.NewConfig(custom.Group.Codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.ExternalAddress = "127.0.0.1:443"
	config.LoopbackClientConfig = &rest.Config{}
	config.Authentication.Authenticator = authenticator.RequestFunc(
		func(r *http.Request) (*authenticator.Response, bool, error) {
			name := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
		})
	config.Authorization.Authorizer = authorizer.AuthorizerFunc(
		func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if a.GetUser().GetName() == "nobody" && a.IsResourceRequest() {
				said := fmt.Sprintf("%s %s/%s %s in %s", a.GetVerb(), a.GetResource(), a.GetSubresource(), a.GetName(),
					a.GetNamespace())
				return authorizer.DecisionDeny, said, nil
			}
			return authorizer.DecisionAllow, "", nil
		})
	api.Configure(config, "test", "v1.2.3", groups...)
	build := config.BuildHandlerChainFunc
	config.BuildHandlerChainFunc = func(next http.Handler, c *genericapiserver.Config) http.Handler {
		return build(api.Handler(next, groups...), c)
	}
	s, err := config.Complete(nil).New("test", genericapiserver.NewEmptyDelegate())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Destroy)
	custom.Install(s, v)
	external.Install(s, v)
	s.PrepareRun()
	h := httptest.NewServer(s.Handler)
	t.Cleanup(h.Close)
	return &rest.Config{Host: h.URL}
}

// get returns the status and the body of an answer.
func get(t *testing.T, config *rest.Config, who, method, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+who)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
