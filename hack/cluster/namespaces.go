package main

// Paths as the processes of a real node see them, whatever the host's are.
const (
	insideDir = "/run/cluster" // the node's state directory
	insideBin = "/run/bin"     // the built programs
)

// namespaces describes the namespaces of one real node.
type namespaces struct {
	Hostname string
	Address  string // of the first node, with prefix length; "" = the node is linked to the first from outside
	State    string // the node's state directory on the host
	Bin      string // the built programs on the host
	Cgroup   string // name of the node's part of every cgroup hierarchy
	Stage    int    // 0: not yet in its cgroups
}
