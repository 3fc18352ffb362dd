package resource

import (
	"encoding/binary"

	"metrics-server/pkg/api/wire"
	"metrics-server/pkg/sample"
)

// appendProtobufHeader appends timestamp and window, which nodes and pods have in common.
func appendProtobufHeader(b []byte, u *sample.PodUsage) []byte {
	b = wire.AppendTimestamp(b, wire.Field2, timeOf(u))
	b, window := wire.Begin(b, wire.Field3, 1)
	b = append(b, 1<<3)
	b = binary.AppendUvarint(b, uint64(roundWindow(u.Window)))
	return wire.End(b, window, 1)
}

// AppendProtobuf implements api.ItemEncoder.
func (nodes) AppendProtobuf(b []byte, u *sample.PodUsage) []byte {
	b = appendProtobufHeader(b, u)
	if len(u.Containers) == 0 {
		return b
	}
	return appendResources(b, wire.Field4, &u.Containers[0].Usage)
}

// AppendProtobuf implements api.ItemEncoder.
func (pods) AppendProtobuf(b []byte, u *sample.PodUsage) []byte {
	b = appendProtobufHeader(b, u)
	for i := range u.Containers {
		var container int
		b, container = wire.Begin(b, wire.Field4, 1)
		b = wire.AppendField(b, wire.Field1, u.Containers[i].Name)
		b = appendResources(b, wire.Field2, &u.Containers[i].Usage)
		b = wire.End(b, container, 1)
	}
	return b
}

// appendResources appends a usage, which is a map: one field with key and value per entry.
func appendResources(b []byte, tag byte, u *sample.Usage) []byte {
	b, entry := wire.Begin(b, tag, 1)
	b = endQuantity(appendCPU(append(b, entryCPU...), u.CPU), entry, len(entryCPU))
	b, entry = wire.Begin(b, tag, 1)
	b = endQuantity(appendBytes(append(b, entryMemory...), u.Memory), entry, len(entryMemory))
	if u.HasSwap {
		b, entry = wire.Begin(b, tag, 1)
		b = endQuantity(appendBytes(append(b, entrySwap...), u.Swap), entry, len(entrySwap))
	}
	return b
}

// The prefixes of usage entries: the name of the resource, and a quantity, whose only field is its
// text. The lengths of the quantity and its text are 0 until endQuantity sets them.
const (
	entryCPU    = "\x0a\x03cpu\x12\x00\x0a\x00"
	entryMemory = "\x0a\x06memory\x12\x00\x0a\x00"
	entrySwap   = "\x0a\x04swap\x12\x00\x0a\x00"
)

// endQuantity sets the lengths of the entry that starts at index at. The text of its quantity
// starts head bytes later. All lengths fit in one byte.
func endQuantity(b []byte, at, head int) []byte {
	n := len(b) - at
	b[at-1], b[at+head-3], b[at+head-1] = byte(n), byte(n-head+2), byte(n-head)
	return b
}
