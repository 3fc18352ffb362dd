package doctor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// account returns the service account of the server's pod; nil if it cannot be read.
func (e *examination) account(ctx context.Context, server *corev1.Pod) *metav1.PartialObjectMetadata {
	if server == nil {
		return nil
	}
	accounts := corev1.SchemeGroupVersion.WithResource("serviceaccounts")
	account, err := e.api.metadata.Resource(accounts).Namespace(server.Namespace).
		Get(ctx, cmp.Or(server.Spec.ServiceAccountName, "default"), metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return account
}

// tokenLife is how long a pod keeps a token: the kubelet requests a new one before the hour is over.
const tokenLife = time.Hour

// judgeAccount compares the age of a pod with that of its service account: a token is valid only for
// the account for which it was issued.
func judgeAccount(pod *corev1.Pod, account *metav1.PartialObjectMetadata, now time.Time) []Line {
	if account == nil || !pod.CreationTimestamp.Before(&account.CreationTimestamp) {
		return nil
	}
	if IsReady(pod) && now.Sub(account.CreationTimestamp.Time) > tokenLife {
		return nil // its token is of the new account
	}
	return []Line{NewLine(checkPods, Problem,
		fmt.Sprintf("pod %s/%s is older than its service account %s, which was created at %s",
			pod.Namespace, pod.Name, account.Name, account.CreationTimestamp.UTC().Format(time.RFC3339)),
		"the account was deleted and created again, which invalidates the pod's token: the API server and the "+
			"kubelets answer with 401",
		fmt.Sprintf("delete the pod; its replacement gets a valid token: kubectl -n %s delete pod %s",
			pod.Namespace, pod.Name)).aboutPod(pod)}
}
