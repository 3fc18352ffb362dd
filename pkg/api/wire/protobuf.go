package wire

import (
	"encoding/binary"
	"time"
)

// Tags of length-delimited protobuf fields, by field number.
const (
	Field1  = 1<<3 | 2
	Field2  = 2<<3 | 2
	Field3  = 3<<3 | 2
	Field4  = 4<<3 | 2
	Field6  = 6<<3 | 2
	Field8  = 8<<3 | 2
	Field11 = 11<<3 | 2
)

// AppendField appends a field that contains s.
func AppendField(b []byte, tag byte, s string) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// AppendTimestamp appends a time, in seconds, as metav1.Time does.
func AppendTimestamp(b []byte, tag byte, t time.Time) []byte {
	b, at := Begin(b, tag, 1)
	if !t.IsZero() {
		b = append(b, 1<<3)
		b = binary.AppendUvarint(b, uint64(t.Unix()))
		b = append(b, 2<<3, 0)
	}
	return End(b, at, 1)
}

// Begin appends the tag of a field whose length is not known yet and reserves room bytes, 1 or 2,
// for the length. The content is whatever is appended before the call of End, which takes at and
// room.
func Begin(b []byte, tag byte, room int) (_ []byte, at int) {
	b = append(b, tag, 0)
	if room == 2 {
		b = append(b, 0)
	}
	return b, len(b)
}

// End writes the length of the field whose content starts at index at. If the length does not take
// exactly room bytes, the content is moved, which is cheaper than computing the length beforehand.
func End(b []byte, at, room int) []byte {
	size := len(b) - at
	switch {
	case room == 1 && size < 1<<7:
		b[at-1] = byte(size)
		return b
	case room == 2 && size >= 1<<7 && size < 1<<14:
		b[at-2], b[at-1] = byte(size)|1<<7, byte(size>>7)
		return b
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(size))
	b = append(b, length[:]...) // make room for a longer length
	copy(b[at-room+n:], b[at:at+size])
	copy(b[at-room:], length[:n])
	return b[:at-room+n+size]
}
