package apiserver

import (
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"metrics-server/hack/fleet/cluster"
)

// nodeLabels returns the labels of n. The half of all nodes with fleet/half=0 is for
// --node-selector.
func nodeLabels(n *cluster.Node) map[string]string {
	zone := string(rune('a' + n.Index%3))
	return map[string]string{
		"beta.kubernetes.io/arch":                  "amd64",
		"beta.kubernetes.io/instance-type":         "m6i.2xlarge",
		"beta.kubernetes.io/os":                    "linux",
		"failure-domain.beta.kubernetes.io/region": "eu-central-1",
		"failure-domain.beta.kubernetes.io/zone":   "eu-central-1" + zone,
		"fleet/half":                               strconv.Itoa(n.Index % 2),
		"kubernetes.io/arch":                       "amd64",
		"kubernetes.io/hostname":                   n.Name,
		"kubernetes.io/os":                         "linux",
		"node.kubernetes.io/instance-type":         "m6i.2xlarge",
		"node.example.com/group":                   "general-" + zone,
		"topology.ebs.csi.aws.com/zone":            "eu-central-1" + zone,
		"topology.kubernetes.io/region":            "eu-central-1",
		"topology.kubernetes.io/zone":              "eu-central-1" + zone,
	}
}

func nodeMeta(n *cluster.Node) metav1.ObjectMeta {
	created, beat := metav1.NewTime(n.Boot), metav1.NewTime(n.Heartbeat)
	return metav1.ObjectMeta{
		Name: n.Name, UID: types.UID(n.UID()), ResourceVersion: strconv.FormatUint(n.Version, 10),
		CreationTimestamp: created,
		Labels:            nodeLabels(n),
		Annotations: map[string]string{
			"alpha.kubernetes.io/provided-node-ip":                   n.Addr.Addr().String(),
			"csi.volume.kubernetes.io/nodeid":                        `{"ebs.csi.aws.com":"i-` + n.UID()[:13] + `"}`,
			"node.alpha.kubernetes.io/ttl":                           "0",
			"projectcalico.org/IPv4Address":                          n.Addr.Addr().String() + "/16",
			"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		},
		ManagedFields: []metav1.ManagedFieldsEntry{
			{
				Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &created,
				FieldsType: "FieldsV1", FieldsV1: nodeFields,
			},
			{
				Manager: "kube-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1",
				Time: &created, FieldsType: "FieldsV1", FieldsV1: ipamFields,
			},
			{
				Manager: "kubelet", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", Time: &beat,
				FieldsType: "FieldsV1", FieldsV1: nodeStatusFields, Subresource: "status",
			},
		},
	}
}

var (
	nodeFields = fieldsV1("metadata{" +
		"annotations{.,alpha.kubernetes.io/provided-node-ip,csi.volume.kubernetes.io/nodeid," +
		"volumes.kubernetes.io/controller-managed-attach-detach}," +
		"labels{.,beta.kubernetes.io/arch,beta.kubernetes.io/os,kubernetes.io/arch,kubernetes.io/hostname," +
		"kubernetes.io/os,node.kubernetes.io/instance-type," +
		"topology.kubernetes.io/region,topology.kubernetes.io/zone}},spec{providerID}")
	ipamFields = fieldsV1("metadata{annotations{node.alpha.kubernetes.io/ttl}}," +
		"spec{podCIDR,podCIDRs{.,v:10.0.0.0/24}}")
	nodeStatusFields = fieldsV1("status{allocatable{cpu,ephemeral-storage,hugepages-1Gi,hugepages-2Mi,memory,pods}," +
		"capacity{cpu,ephemeral-storage,memory,pods}," +
		"conditions{" + strings.Repeat("k:type{lastHeartbeatTime,lastTransitionTime,message,reason,status},", 4) +
		"},images,nodeInfo{bootID}}")
)

// node returns the whole object of n, about 13 KB of JSON, most of which is its images.
func node(n *cluster.Node) *corev1.Node {
	ip := n.Addr.Addr().String()
	o := &corev1.Node{
		ObjectMeta: nodeMeta(n),
		Spec: corev1.NodeSpec{
			PodCIDR:    fmt.Sprintf("10.%d.%d.0/24", n.Index>>8, n.Index&0xff),
			PodCIDRs:   []string{fmt.Sprintf("10.%d.%d.0/24", n.Index>>8, n.Index&0xff)},
			ProviderID: "aws:///eu-central-1a/i-" + n.UID()[:13],
		},
		Status: corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: capacity,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: ip},
				{Type: corev1.NodeInternalDNS, Address: n.Name},
				{Type: corev1.NodeHostName, Address: n.Name},
			},
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n.Addr.Port())}},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: n.UID(), SystemUUID: n.UID(), BootID: n.UID(), KernelVersion: "6.12.48-amd64",
				OSImage:                 "Debian GNU/Linux 13 (trixie)",
				ContainerRuntimeVersion: "containerd://2.1.4", KubeletVersion: "v1.37.2", OperatingSystem: "linux",
				Architecture: "amd64",
			},
			Images: images,
		},
	}
	for _, c := range []struct {
		kind            corev1.NodeConditionType
		status          corev1.ConditionStatus
		reason, message string
	}{
		{
			corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory",
			"kubelet has sufficient memory available",
		},
		{corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"},
	} {
		o.Status.Conditions = append(o.Status.Conditions, corev1.NodeCondition{
			Type: c.kind, Status: c.status, Reason: c.reason, Message: c.message,
			LastHeartbeatTime: metav1.NewTime(n.Heartbeat), LastTransitionTime: metav1.NewTime(n.Boot),
		})
	}
	return o
}

var capacity = corev1.ResourceList{
	corev1.ResourceCPU:              resource.MustParse("512"),
	corev1.ResourceMemory:           resource.MustParse("512Gi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	corev1.ResourcePods:             resource.MustParse("110"),
	"hugepages-1Gi":                 resource.MustParse("0"),
	"hugepages-2Mi":                 resource.MustParse("0"),
}

// images has as many images as a kubelet lists at most.
var images = func() []corev1.ContainerImage {
	var all []corev1.ContainerImage
	for i := range 50 {
		name := fmt.Sprintf("registry.example.com/platform/component-%02d", i)
		all = append(all, corev1.ContainerImage{
			Names: []string{
				name + "@sha256:" + strings.Repeat(fmt.Sprintf("%08x", 0x9e3779b9*uint32(i+1)), 8),
				name + ":v1." + strconv.Itoa(i),
			},
			SizeBytes: int64(50+i) << 20,
		})
	}
	return all
}()
