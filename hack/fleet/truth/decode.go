package truth

import (
	"bytes"
	"encoding/binary"
	"errors"

	"k8s.io/apimachinery/pkg/runtime"
)

// errEncoding is the error for a list that is not valid protobuf.
var errEncoding = errors.New("the list is not in the API's protobuf encoding")

// EachItem calls f with each item of a list in protobuf, encoded, so that a list of a hundred thousand objects need
// not be in memory a second time.
func EachItem(list []byte, f func(item []byte) error) error {
	raw, ok := bytes.CutPrefix(list, []byte("k8s\x00"))
	if !ok {
		return errEncoding
	}
	var u runtime.Unknown
	if err := u.Unmarshal(raw); err != nil {
		return err
	}
	const items = 2 // the number of the field, in every list of the API
	for b := u.Raw; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag&7 != 2 {
			return errEncoding
		}
		size, m := binary.Uvarint(b[n:])
		b = b[n+max(m, 0):]
		if m <= 0 || size > uint64(len(b)) {
			return errEncoding
		}
		if tag>>3 == items {
			if err := f(b[:size]); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}
