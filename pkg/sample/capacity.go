package sample

// Capacity is how much CPU and memory a node has. Zero means unknown.
type Capacity struct {
	CPU    uint64 // nanocores
	Memory uint64 // bytes
}
