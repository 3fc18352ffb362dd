module metrics-server/hack/cluster/kubelets

go 1.26.0

require metrics-server v0.0.0

replace metrics-server => ../../..
