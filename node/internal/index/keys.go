package index

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// The first byte of every key. The letters and layouts are stored.
//
//	r kind topic number   a record (all kinds but key packages)
//	k topic               an installation's newest key package: number, record
//	d kind hash           what was published before: number
//	s inbox               an inbox's association state: number of its last update, how many, their bytes, state
//	a kind identifier number   an identifier's membership: inbox id, number of its revocation or 0
//	v question            a contract wallet's signature in an update: number of the update
//	m                     number and time of the newest record, ordinal of its batch
//	b slot                ordinal of a batch; the newest have each their own of 65536 slots
//
// Topics and identifiers are written with their length in one byte, numbers as
// 8 bytes, big-endian.
const (
	prefixRecord     = 'r'
	prefixKeyPackage = 'k'
	prefixSeen       = 'd'
	prefixState      = 's'
	prefixAddress    = 'a'
	prefixContract   = 'v'
	prefixMeta       = 'm'
	prefixBatch      = 'b'
)

const maxTopicLength = 255

func appendTopic(key []byte, id string) []byte {
	return append(append(key, byte(len(id))), id...)
}

// recordPrefix is what the keys of a topic's records begin with. The topic's
// identifier is at most 255 bytes long.
func recordPrefix(topic order.Topic) []byte {
	key := make([]byte, 0, 3+len(topic.ID)+8)
	return appendTopic(append(key, prefixRecord, byte(topic.Kind)), topic.ID)
}

func recordKey(topic order.Topic, number uint64) []byte {
	return binary.BigEndian.AppendUint64(recordPrefix(topic), number)
}

func keyPackageKey(installation string) []byte {
	return appendTopic([]byte{prefixKeyPackage}, installation)
}

// A publication is the key of what was published.
type publication [18]byte

// seenKey names a publication by half a SHA-256 of its topic and payload: a
// stranger's equal name would cost 2^128 tries.
func seenKey(topic order.Topic, payload []byte) publication {
	h := sha256.New()
	h.Write([]byte{byte(len(topic.ID))})
	h.Write([]byte(topic.ID))
	h.Write(payload)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	key := publication{prefixSeen, byte(topic.Kind)}
	copy(key[2:], sum[:16])
	return key
}

func stateKey(inbox string) []byte {
	return append([]byte{prefixState}, inbox...)
}

func addressPrefix(kind byte, identifier string) []byte {
	return appendTopic([]byte{prefixAddress, kind}, identifier)
}

func contractKey(q identity.ContractQuestion) []byte {
	key := q.Key()
	return append([]byte{prefixContract}, key[:]...)
}

var metaKey = []byte{prefixMeta}

// batchKey is the place of a batch among the newest ones. See [checkBatches].
func batchKey(ordinal uint64) []byte {
	return binary.BigEndian.AppendUint16([]byte{prefixBatch}, uint16(ordinal))
}

// prefixEnd is the first key after all keys that begin with the prefix, which
// must hold a byte below 0xff.
func prefixEnd(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; ; i-- {
		if end[i] != 0xff {
			end[i]++
			return end[:i+1]
		}
	}
}
