package index

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/go-xmtp/go-xmtp/node/internal/order"
)

// damagedTable is a table of which something can't be read. It is [ErrDamaged].
type damagedTable struct {
	path        string
	first, last []byte // keys of the table
}

func newDamagedTable(info pebble.DataCorruptionInfo) *damagedTable {
	return &damagedTable{info.Path, info.Bounds.Start, info.Bounds.End.Key}
}

// Error tells where the keys are by kinds and numbers: topics are not for logs.
func (d *damagedTable) Error() string {
	return fmt.Sprintf("%v: the table %s, which holds %s to %s; xmtp node verify tells which keys can't be read, xmtp node --data with a backup goes on without them",
		ErrDamaged, d.path, place(d.first), place(d.last))
}

func (d *damagedTable) Unwrap() error { return ErrDamaged }

// entryNames are those of entries that aren't records.
var entryNames = map[byte]string{
	prefixSeen:     "what was published",
	prefixState:    "inboxes",
	prefixAddress:  "identifiers",
	prefixContract: "contract signatures",
	prefixMeta:     "the newest number",
	prefixBatch:    "numbers of batches",
}

// place describes a key without its topic.
func place(key []byte) string {
	if len(key) == 0 {
		return "an unknown key"
	}
	switch key[0] {
	case prefixRecord:
		if topic, number, err := parseRecordKey(key); err == nil {
			return fmt.Sprintf("%s %d", kindNames[topic.Kind], number)
		}
	case prefixKeyPackage:
		return kindNames[order.KeyPackage] + "s"
	}
	if name := entryNames[key[0]]; name != "" {
		return name
	}
	return "an unknown key"
}
