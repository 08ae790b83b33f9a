package index

import (
	"bytes"
	"testing"
)

// Values that share an allocation don't share bytes, also when they grow.
func TestSlab(t *testing.T) {
	var s slab
	var copies [][]byte
	for i := range 300 {
		value := bytes.Repeat([]byte{byte(i)}, i*7)
		copies = append(copies, s.copy(value))
		clear(value)
	}
	for i, c := range copies {
		if !bytes.Equal(c, bytes.Repeat([]byte{byte(i)}, i*7)) {
			t.Fatalf("copy %d is another", i)
		}
		_ = append(c, 0xff)
	}
	allocations := testing.AllocsPerRun(10, func() {
		var s slab
		for range 100 {
			s.copy(copies[150])
		}
	})
	if allocations > 10 {
		t.Errorf("%v allocations for a page", allocations)
	}
}
