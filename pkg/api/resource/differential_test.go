package resource

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
)

// However odd a request is, the answer is that of the generic server, in whichever form the request
// comes. Only the Table of nodes differs on purpose: it has a row for each node.
func TestAnswersEqualGenericServer(t *testing.T) {
	const table = mediaJSON + ";as=Table;g=meta.k8s.io;v=v1"
	paths := []string{
		"/nodes", "/nodes/n1", "/nodes/n2", "/nodes/none", "/pods", "/namespaces/a/pods", "/namespaces/a/pods/web-1",
		"/namespaces/a/pods/web%2D1",
		"/namespaces/a%2Fpods/web-1", "/namespaces/a/pods/web-1%2Fstatus", "/nodes/n1%00", "/nodes/%2e%2e",
		"/nodes/..", "/nodes/../nodes", "/nodes/./n1",
		"//nodes", "/nodes//", "/nodes//n1", "/namespaces//pods", "/namespaces//pods/web-1", "/namespaces/a//pods",
		"/Nodes", "/namespaces/A/pods",
		"/namespaces/a/pods/", "/namespaces/%20/pods", "/namespaces/a/pods/%20", "/nodes/n1;x=1", "/nodes;x",
		"/namespaces/a/pods/web-1/log", "/proxy/nodes/n1",
		"/namespaces/a", "/namespaces", "/namespaces/a/status", "/nodes/n1/pods",
		"/namespaces/pods/pods", "/namespaces/nodes/nodes",
	}
	queries := []string{
		"", "labelSelector=", "labelSelector=app%3Dweb", "labelSelector=app==web", "labelSelector=!app",
		"labelSelector=app+in+(web,db)", "labelSelector=a%3D%3C%26%3E",
		"labelSelector=app>1", "labelSelector=a%3D" + strings.Repeat("a", 64), "labelSelector=%ff",
		"labelSelector=app=web&", "labelSelector=app=web;",
		"LabelSelector=app=web", "labelSelector", "&labelSelector=app=web", "labelSelector=app=web,",
		"labelSelector=,", "labelSelector=%20", "labelSelector=+",
		"limit=1", "limit=-1", "limit=x", "continue=x", "continue=", "resourceVersion=0", "resourceVersion=x",
		"resourceVersionMatch=Exact",
		"timeoutSeconds=x", "watch=false", "sendInitialEvents=true", "fieldSelector=metadata.name=n1",
		"fieldSelector=spec.nodeName=n1",
		"fieldSelector=status.phase=Running", "fieldSelector=,", "fieldSelector=metadata.name=a/b", "pretty=true",
		"pretty=x", "includeObject=None",
		"includeObject=bogus", "foo=bar", "%6cabelSelector=app%3Dweb",
	}
	accepts := []string{
		"", "*/*", "application/*", "*", "*/json", "application/JSON", "application/vnd.kubernetes.protobuf",
		"application/yaml", "application/cbor", "text/html",
		"application/json;q=0", "application/json;q=0.5,application/vnd.kubernetes.protobuf;q=0.9",
		"application/json;stream=watch", "application/json;pretty=1",
		"application/json; pretty=true", "application/json;as=table;g=meta.k8s.io;v=v1",
		"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
		"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
		"application/json;as=APIResourceList;g=meta.k8s.io;v=v1", "application/json;charset=utf-8",
		"application/json;", ";", ",", "bogus", "application/apidiscovery.k8s.io", "application/json, */*;q=0.1",
		" application/json", "application/json\t, text/html",
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/*,application/yaml",
		"application/*, application/json", "application/*;q=0.1",
	}
	c := newCluster()
	ours, standard := c.handler(t), c.standardHandler(t)
	check := func(method, target, accept string) {
		ask := func(h http.Handler) *httptest.ResponseRecorder {
			raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: test\r\nAccept: %s\r\n\r\n", method, target, accept)
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
			if err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			r.RemoteAddr = "192.0.2.1:1234"
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r.WithContext(t.Context()))
			w.Header().Del("Audit-Id")
			return w
		}
		got, want := ask(ours), ask(standard)
		if accept == table && got.Code >= 400 { // the generic server indents these errors
			for _, w := range []*httptest.ResponseRecorder{got, want} {
				var b bytes.Buffer
				if err := json.Compact(&b, w.Body.Bytes()); err != nil {
					t.Errorf("%s %s as %q: %v", method, target, accept, err)
				}
				w.Body = &b
				w.Header().Del("Content-Length")
			}
		}
		if got.Code != want.Code || got.Body.String() != want.Body.String() {
			t.Errorf("%s %s as %q: got %d\n%.500s\nwant %d\n%.500s",
				method, target, accept, got.Code, got.Body, want.Code, want.Body)
		}
		if d := gocmp.Diff(want.Header(), got.Header()); d != "" {
			t.Errorf("%s %s as %q: header (-want +got):\n%s", method, target, accept, d)
		}
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
			check(method, group+"v1"+path, mediaJSON)
		}
		check("GET", group+"v1beta1"+path, runtime.ContentTypeProtobuf)
	}
	for _, path := range []string{"/nodes", "/nodes/n1", "/namespaces/a/pods", "/namespaces/a/pods/web-1"} {
		for _, query := range queries {
			check("GET", group+"v1"+path+"?"+query, mediaJSON)
			check("GET", group+"v1beta1"+path+"?"+query, runtime.ContentTypeProtobuf)
			if !strings.HasPrefix(path, "/nodes") {
				check("GET", group+"v1"+path+"?"+query, table)
			}
		}
		for _, accept := range accepts {
			for _, query := range []string{"", "?limit=1", "?labelSelector=app%3Dweb", "?labelSelector=a%20b"} {
				check("GET", group+"v1"+path+query, accept)
			}
		}
	}
}
