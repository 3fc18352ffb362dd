package inventory

import (
	"context"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// NewClient returns a client for Config.Client that uses h, an HTTP client made for c. It decodes only
// those fields of an object that an Inventory keeps. With controllers, that includes what manages a
// pod.
func NewClient(c *rest.Config, h *http.Client, controllers bool) (rest.Interface, error) {
	c = rest.CopyConfig(c)
	c.APIPath, c.GroupVersion = "/api", &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = newCodecs(controllers)
	return rest.RESTClientForConfigAndClient(c, h)
}

// collection is all objects of one resource in the API server.
type collection struct {
	client rest.Interface
	name   string
	// The kinds that lists and watches request instead of whole objects; empty: whole objects.
	asList, as string
}

func (c collection) list(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return c.request(o, c.asList).Do(ctx).Get()
}

// watch opens a watch of the objects.
func (c collection) watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return c.request(o, c.as).Watch(ctx)
}

var parameters = runtime.NewParameterCodec(scheme)

func (c collection) request(o metav1.ListOptions, as string) *rest.Request {
	if as != "" {
		as = fmt.Sprintf(";as=%s;g=%s;v=v1", as, metav1.GroupName)
	}
	q := c.client.Get().Resource(c.name).VersionedParams(&o, parameters).
		SetHeader("Accept", runtime.ContentTypeProtobuf+as+","+runtime.ContentTypeJSON+as)
	if o.TimeoutSeconds != nil {
		q = q.Timeout(time.Duration(*o.TimeoutSeconds) * time.Second)
	}
	return q
}
