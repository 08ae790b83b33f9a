// Command fill makes the data directory of a node that has had very many group
// messages, by writing its tables instead of publishing. See [index.Index.Load].
//
//	go run ./node/internal/fill -data DIR -groups 10000 -each 500
//
// Group i, counted from 0, has the id that [groupID] gives it. The messages of a
// group are spread over the whole time, as if all groups were talking at once.
package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// groupID is 16 bytes, the last 8 of which are the group's number.
func groupID(i int) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i))
}

func main() {
	data := flag.String("data", "", "`directory` to make")
	groups := flag.Int("groups", 100, "how many groups")
	each := flag.Int("each", 500, "how many messages each has")
	size := flag.Int("size", 1<<10, "`bytes` of a message")
	flag.Parse()
	if err := fill(*data, *groups, *each, *size); err != nil {
		fmt.Fprintln(os.Stderr, "fill:", err)
		os.Exit(1)
	}
}

func fill(dir string, groups, each, size int) error {
	if dir == "" || groups < 1 || each < 1 || size < headSize(0)+8 {
		return errors.New("a directory, and something to put there, must be given")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	x, err := index.Open(index.Options{
		FS:        vfs.Default,
		Dir:       dir,
		Logger:    slog.New(slog.DiscardHandler),
		OnFailure: func(err error) { fmt.Fprintln(os.Stderr, "fill:", err); os.Exit(1) },
	})
	if err != nil {
		return err
	}
	return errors.Join(x.Load(messages(groups, each, size)), x.Close())
}

// messages are in the order of their keys.
func messages(groups, each, size int) iter.Seq[*order.Record] {
	noise := make([]byte, size)
	rand.Read(noise)
	begin := uint64(time.Now().Add(-time.Hour).UnixNano())
	facts := order.GroupFacts{}.Append(nil)
	return func(yield func(*order.Record) bool) {
		for i := range groups {
			id := groupID(i)
			for j := range each {
				number := uint64(j*groups + i + 1)
				r := &order.Record{
					Topic:   order.Topic{Kind: order.GroupMessage, ID: string(id)},
					Number:  number,
					Time:    begin + number,
					Facts:   facts,
					Payload: message(id, number, noise, size),
				}
				if !yield(r) {
					return
				}
			}
		}
	}
}

// message is an MLSMessage with a PrivateMessage (RFC 9420, section 6) that no
// member could read.
func message(group []byte, number uint64, noise []byte, size int) []byte {
	ciphertext := size - headSize(size)
	b := make([]byte, 0, size)
	b = append(b, 0, 1, 0, 2, byte(len(group)))
	b = append(b, group...)
	b = binary.BigEndian.AppendUint64(b, 1) // epoch
	b = append(b, 1, 0, 28)                 // an application's, without authenticated data
	b = append(b, noise[:28]...)            // sender data
	if ciphertext < 64 {
		b = append(b, byte(ciphertext))
	} else {
		b = binary.BigEndian.AppendUint16(b, 1<<14|uint16(ciphertext))
	}
	b = binary.BigEndian.AppendUint64(b, number)
	return append(b, noise[:ciphertext-8]...)
}

// headSize is the length of all but the ciphertext.
func headSize(size int) int {
	head := 4 + 1 + 16 + 8 + 1 + 1 + 1 + 28 + 1
	if size-head >= 64 {
		head++
	}
	return head
}
