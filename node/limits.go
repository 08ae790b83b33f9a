package node

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/go-xmtp/go-xmtp/node/internal/api"
)

// DefaultStreamsPerAddress is enough for some thousand clients behind one address.
const DefaultStreamsPerAddress = 5000

// Limits are what callers and inboxes may do. The zero value lets everybody do
// what doesn't endanger the node. An address is an IPv4 address, or the /64 of an
// IPv6 address.
type Limits struct {
	// Rates limits how much an address may write and read, as the reference node
	// does: 3,000 writes at once and 600 a minute, 20,000 reads at once and 4,000 a
	// minute. A write counts once for each message or entry, and again for each 64 KiB of a
	// message and for 4 signatures of an identity update; a read once, and again for
	// each 64 KiB of the answer and for 20 topics or inboxes that it asks for.
	Rates bool
	// StreamsPerAddress is how many streams may be open from one address if
	// there are Rates. Zero is no limit.
	StreamsPerAddress int
	// TrustedProxies are the addresses of proxies whose x-forwarded-for is
	// believed: the last address in it that is not a trusted proxy's is the caller's.
	TrustedProxies []netip.Prefix
	// ExemptAddresses have no Rates.
	ExemptAddresses []netip.Prefix
	// AllowAddresses are the only ones that are served, if there are any, but for
	// DenyAddresses, which are not.
	AllowAddresses, DenyAddresses []netip.Prefix
	// AllowInboxes are the only ones, as 64 digits of hex, for which identity
	// updates and key packages are taken, if there are any, but for DenyInboxes. No
	// other writes name an inbox.
	AllowInboxes, DenyInboxes []string
	// InboxWrites is how many such writes each inbox has a day, and InboxBytes how
	// many bytes; at once, and coming back evenly. Installations that an inbox
	// doesn't list, perhaps not yet, have as much together, apart from its own. What
	// was used is forgotten when the node ends. Zero is no limit.
	InboxWrites, InboxBytes int
}

func (l *Limits) check() error {
	for _, id := range slices.Concat(l.AllowInboxes, l.DenyInboxes) {
		if raw, err := hex.DecodeString(id); err != nil || len(raw) != 32 {
			return fmt.Errorf("node: %.70q is no inbox id: it has 64 digits of hex", id)
		}
	}
	for _, n := range []int{l.StreamsPerAddress, l.InboxWrites, l.InboxBytes} {
		if n < 0 {
			return fmt.Errorf("node: a limit of %d", n)
		}
	}
	return nil
}

// SetLimits replaces the limits of a running node, from the next call on. What
// was used stays used.
func (n *Node) SetLimits(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	n.limiter.Set(api.Limits(l))
	return nil
}
