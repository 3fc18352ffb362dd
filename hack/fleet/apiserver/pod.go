package apiserver

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"metrics-server/hack/fleet/cluster"
)

// podMeta returns the metadata of p, about 4 KB of JSON as in real clusters.
func podMeta(p *cluster.Pod) metav1.ObjectMeta {
	owner := metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: "ReplicaSet", Name: p.Workload.Name + "-" + p.Hash,
		Controller: new(true), BlockOwnerDeletion: new(true),
		UID: types.UID("3f2a9d10-77aa-4c1e-9b52-0000" + p.Hash),
	}
	if p.Stateful {
		owner.Kind, owner.Name = "StatefulSet", p.Workload.Name
	}
	m := metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, UID: types.UID(p.UID()),
		ResourceVersion: strconv.FormatUint(p.Version, 10), Generation: 1,
		CreationTimestamp: metav1.NewTime(p.Created),
		Labels:            p.PodLabels(),
		Annotations: map[string]string{
			"checksum/config":                       p.UID() + p.Hash,
			"cni.projectcalico.org/containerID":     strings.Repeat(p.Hash, 8),
			"cni.projectcalico.org/podIP":           p.IP().String() + "/32",
			"cni.projectcalico.org/podIPs":          p.IP().String() + "/32",
			"kubectl.kubernetes.io/restartedAt":     "2026-10-02T09:11:27Z",
			"prometheus.io/path":                    "/metrics",
			"prometheus.io/port":                    "8080",
			"prometheus.io/scrape":                  "true",
			"cluster-autoscaler.kubernetes.io/safe": "true",
		},
		OwnerReferences: []metav1.OwnerReference{owner},
	}
	if !p.Stateful {
		m.GenerateName = owner.Name + "-"
	}
	created := metav1.NewTime(p.Created)
	m.ManagedFields = []metav1.ManagedFieldsEntry{
		{
			Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
			Time: &created, FieldsType: "FieldsV1", FieldsV1: specFields,
		},
		{
			Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
			Time: &created, FieldsType: "FieldsV1", FieldsV1: statusFields, Subresource: "status",
		},
	}
	return m
}

func localReference(name string) corev1.LocalObjectReference {
	return corev1.LocalObjectReference{Name: name}
}

// specFields and statusFields are the managed fields, as every object in a cluster has them, for a
// pod with two containers.
var (
	specFields = fieldsV1("metadata{annotations{.,checksum/config,kubectl.kubernetes.io/restartedAt," +
		"prometheus.io/path,prometheus.io/port,prometheus.io/scrape}," +
		"generateName,labels{.,app,app.kubernetes.io/instance," +
		"app.kubernetes.io/managed-by,app.kubernetes.io/name,helm.sh/chart,pod-template-hash}," +
		"ownerReferences{.,k:uid}},spec{affinity{.,podAntiAffinity{.,preferredDuringSchedulingIgnoredDuringExecution}}," +
		"containers{" + strings.Repeat("k:name{.,"+
		"env{.,k:name{.,name,value},k:name{.,name,valueFrom{.,secretKeyRef}}},image,imagePullPolicy,"+
		"livenessProbe{.,failureThreshold,httpGet{.,path,port,scheme},"+
		"periodSeconds,successThreshold,timeoutSeconds},name,ports{.,k:containerPort{.,containerPort,name,protocol}},"+
		"readinessProbe{.,failureThreshold,httpGet{.,path,port,scheme},"+
		"periodSeconds,successThreshold,timeoutSeconds},resources{.,limits{.,memory},requests{.,cpu,memory}},"+
		"securityContext{.,allowPrivilegeEscalation,capabilities{.,drop}},"+
		"terminationMessagePath,terminationMessagePolicy,volumeMounts{.,k:mountPath{.,mountPath,name}}},", 2) +
		"},dnsPolicy,enableServiceLinks,restartPolicy,schedulerName,securityContext{.,fsGroup,runAsNonRoot}," +
		"serviceAccount,serviceAccountName,terminationGracePeriodSeconds," +
		"tolerations,topologySpreadConstraints{.,k:topologyKey{.,labelSelector,maxSkew,topologyKey,whenUnsatisfiable}}," +
		"volumes{.,k:name{.,configMap{.,defaultMode,name},name}}}")
	statusFields = fieldsV1("status{conditions{" +
		strings.Repeat("k:type{.,lastProbeTime,lastTransitionTime,observedGeneration,status,type},", 4) +
		"},containerStatuses,hostIP,hostIPs,observedGeneration,phase,podIP,podIPs{.,k:ip{.,ip}},startTime}")
)

// fieldsV1 expands a short form of a set of managed fields, in which k: is an element of a list.
func fieldsV1(short string) *metav1.FieldsV1 {
	elements := 0
	var set func() map[string]any
	set = func() map[string]any {
		m := map[string]any{}
		for short != "" {
			end := strings.IndexAny(short, "{},")
			if end < 0 {
				end = len(short)
			}
			word, rest := short[:end], short[min(end+1, len(short)):]
			is := short[end:min(end+1, len(short))]
			short = rest
			var inner map[string]any
			if is == "{" {
				inner = set()
			}
			switch {
			case word == "":
			case word == ".":
				m["."] = map[string]any{}
			case strings.HasPrefix(word, "k:"):
				elements++
				m[fmt.Sprintf("k:{%q:\"value-%d\"}", word[2:], elements)] = inner
			default:
				m["f:"+word] = inner
			}
			if is == "}" {
				break
			}
		}
		return m
	}
	b, err := json.Marshal(set())
	must(err)
	return metav1.NewFieldsV1(strings.ReplaceAll(string(b), "null", "{}"))
}

// pod returns the whole object of p, about 9 KB of JSON.
func pod(p *cluster.Pod) *corev1.Pod {
	started := metav1.NewTime(p.Created)
	o := &corev1.Pod{
		ObjectMeta: podMeta(p),
		Spec: corev1.PodSpec{
			NodeName:                      p.Machine.Name,
			RestartPolicy:                 corev1.RestartPolicyAlways,
			DNSPolicy:                     corev1.DNSClusterFirst,
			SchedulerName:                 corev1.DefaultSchedulerName,
			ServiceAccountName:            p.Workload.Name,
			DeprecatedServiceAccount:      p.Workload.Name,
			TerminationGracePeriodSeconds: new(int64(30)),
			EnableServiceLinks:            new(true),
			PreemptionPolicy:              new(corev1.PreemptLowerPriority),
			Priority:                      new(int32(0)),
			SecurityContext:               &corev1.PodSecurityContext{RunAsNonRoot: new(true), FSGroup: new(int64(65534))},
			Tolerations: []corev1.Toleration{
				{
					Key: "node.kubernetes.io/not-ready", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
					TolerationSeconds: new(int64(300)),
				},
				{
					Key: "node.kubernetes.io/unreachable", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
					TolerationSeconds: new(int64(300)),
				},
			},
			Volumes: []corev1.Volume{
				{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: localReference(p.Workload.Name), DefaultMode: new(int32(420)),
				}}},
				{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
					DefaultMode: new(int32(420)),
					Sources: []corev1.VolumeProjection{
						{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
							Path: "token", ExpirationSeconds: new(int64(3607)),
						}},
						{ConfigMap: &corev1.ConfigMapProjection{
							LocalObjectReference: localReference("kube-root-ca.crt"),
							Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
						}},
					},
				}}},
			},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, QOSClass: corev1.PodQOSBurstable, StartTime: &started,
			HostIP: p.Machine.Addr.Addr().String(), HostIPs: []corev1.HostIP{{IP: p.Machine.Addr.Addr().String()}},
			PodIP: p.IP().String(), PodIPs: []corev1.PodIP{{IP: p.IP().String()}},
		},
	}
	for _, c := range []corev1.PodConditionType{
		"PodReadyToStartContainers", corev1.PodInitialized, corev1.PodReady,
		corev1.ContainersReady, corev1.PodScheduled,
	} {
		o.Status.Conditions = append(o.Status.Conditions,
			corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: started})
	}
	for i, at := range p.Started {
		name := "c" + strconv.Itoa(i)
		image := "registry.example.com/" + p.Namespace + "/" + p.Workload.Name + ":1.4." + strconv.Itoa(i)
		probe := &corev1.Probe{
			ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
				Path: "/healthz", Port: intstr.FromInt32(8080),
				Scheme: corev1.URISchemeHTTP,
			}},
			PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		}
		o.Spec.Containers = append(o.Spec.Containers, corev1.Container{
			Name: name, Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
			Args:  []string{"--config=/etc/" + p.Workload.Name + "/config.yaml", "--listen=:8080"},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}},
			Env: []corev1.EnvVar{
				{Name: "ENVIRONMENT", Value: "production"},
				{Name: "DATABASE_PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: localReference(p.Workload.Name), Key: "password",
				}}},
			},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: cpuRequest, corev1.ResourceMemory: memoryRequest},
				Limits:   corev1.ResourceList{corev1.ResourceMemory: memoryRequest},
			},
			VolumeMounts: []corev1.VolumeMount{
				{Name: "config", ReadOnly: true, MountPath: "/etc/" + p.Workload.Name},
				{Name: "kube-api-access-x7k2p", ReadOnly: true, MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"},
			},
			LivenessProbe: probe, ReadinessProbe: probe,
			TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		})
		restarts := int32(0)
		if i == 0 {
			restarts = int32(p.Restarts)
		}
		o.Status.ContainerStatuses = append(o.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: name, Image: image, ImageID: image + "@sha256:" + strings.Repeat(p.Hash, 8),
			ContainerID: "containerd://" + strings.Repeat(p.Hash, 8),
			Ready:       true, Started: new(true), RestartCount: restarts,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(at)}},
		})
	}
	return o
}

var cpuRequest, memoryRequest = resource.MustParse("250m"), resource.MustParse("256Mi")
