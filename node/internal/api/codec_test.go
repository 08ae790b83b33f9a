package api

import (
	"bytes"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// Answers are encoded as protobuf has them, whatever their buffer held before and
// whoever else encodes at the time.
func TestCodecMarshal(t *testing.T) {
	var callers sync.WaitGroup
	for caller := range 4 {
		callers.Go(func() {
			for _, size := range []int{0, 1, 1000, 1 << 12, 1<<12 + 1, 100 << 10, 64, maxPooled, maxPooled + 1, 5000} {
				message := &mlsapi.GroupMessageInput_V1{Data: bytes.Repeat([]byte{byte(caller + 1)}, size), ShouldPush: true}
				want, err := proto.Marshal(message)
				if err != nil {
					t.Error(err)
				}
				got, err := NewCodec().Marshal(message)
				if err != nil {
					t.Error(err)
				}
				if !bytes.Equal(got.Materialize(), want) {
					t.Errorf("%d bytes were encoded as others", size)
				}
				got.Free()
			}
		})
	}
	callers.Wait()
	if _, err := NewCodec().Marshal("no message"); err == nil {
		t.Error("something else than a message was encoded")
	}
}
