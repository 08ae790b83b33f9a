package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/go-xmtp/go-xmtp/node"
)

// limitFlags are the flags about what callers and inboxes may do.
type limitFlags struct {
	rates                         bool
	streams                       count
	proxies, exempt, allow, deny  networks
	allowInboxes, denyInboxes     inboxes
	inboxWrites, inboxBytesPerDay count
}

func (l *limitFlags) add(flags *pflag.FlagSet) {
	l.streams = node.DefaultStreamsPerAddress
	flags.BoolVar(&l.rates, "rate-limits", false, "limit how much one network address may send and ask")
	flags.Var(&l.streams, "streams-per-address", "how many streams (`number`) one address may have open with --rate-limits; 0 is no limit")
	flags.Var(&l.proxies, "trusted-proxies", "`networks` of proxies whose x-forwarded-for is believed, such as 127.0.0.1,10.0.0.0/8")
	flags.Var(&l.exempt, "exempt-addresses", "`networks` that --rate-limits is not for")
	flags.Var(&l.allow, "allow-addresses", "`networks` to serve, and no others")
	flags.Var(&l.deny, "deny-addresses", "`networks` not to serve")
	flags.Var(&l.allowInboxes, "allow-inboxes", "`inboxes` to take identity updates and key packages for, and no others")
	flags.Var(&l.denyInboxes, "deny-inboxes", "`inboxes` to take none for")
	flags.Var(&l.inboxWrites, "inbox-writes", "how many of these (`number`) each inbox may send a day; 0 is no limit")
	flags.Var(&l.inboxBytesPerDay, "inbox-bytes", "how many bytes of these (`number`) each inbox may send a day; 0 is no limit")
}

func (l *limitFlags) limits() node.Limits {
	return node.Limits{
		Rates:             l.rates,
		StreamsPerAddress: int(l.streams),
		TrustedProxies:    l.proxies,
		ExemptAddresses:   l.exempt,
		AllowAddresses:    l.allow,
		DenyAddresses:     l.deny,
		AllowInboxes:      l.allowInboxes,
		DenyInboxes:       l.denyInboxes,
		InboxWrites:       int(l.inboxWrites),
		InboxBytes:        int(l.inboxBytesPerDay),
	}
}

// A count is a flag that is a number from 0.
type count int

func (c *count) String() string { return strconv.Itoa(int(*c)) }
func (c *count) Type() string   { return numberType }

func (c *count) Set(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return errors.New("must be a number from 0")
	}
	*c = count(n)
	return nil
}

// networks are a flag of addresses and networks, with commas in between. Given
// again, it adds to them.
type networks []netip.Prefix

func (n *networks) Type() string { return listType }

func (n *networks) String() string {
	texts := make([]string, len(*n))
	for i, network := range *n {
		texts[i] = network.String()
	}
	return strings.Join(texts, ",")
}

func (n *networks) Set(text string) error {
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		network, err := netip.ParsePrefix(entry)
		if addr, isAddr := netip.ParseAddr(entry); isAddr == nil {
			addr = addr.Unmap()
			network, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%q must be an address or a network, such as 192.0.2.7 or 2001:db8::/32", entry)
		}
		*n = append(*n, network)
	}
	return nil
}

// inboxes are a flag of inbox ids, with commas in between. Given again, it adds to them.
type inboxes []string

func (i *inboxes) Type() string   { return listType }
func (i *inboxes) String() string { return strings.Join(*i, ",") }

func (i *inboxes) Set(text string) error {
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if raw, err := hex.DecodeString(entry); err != nil || len(raw) != 32 {
			return fmt.Errorf("%q must be an inbox id, which has 64 digits of hex", entry)
		}
		*i = append(*i, entry)
	}
	return nil
}

// An age is a flag of how long something is kept: like a duration, but also in
// days, and forever.
type age time.Duration

const day = 24 * time.Hour

func (a *age) Type() string { return "age" }

func (a *age) String() string {
	switch d := time.Duration(*a); {
	case d == node.Forever:
		return "forever"
	case d == 0:
		return ""
	case d%day == 0:
		return fmt.Sprintf("%dd", d/day)
	default:
		return d.String()
	}
}

func (a *age) Set(text string) error {
	if text == "forever" {
		*a = age(node.Forever)
		return nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil && n > 0 {
			*a = age(time.Duration(n) * day)
			return nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		*a = age(d)
		return nil
	}
	return errors.New(`must be how long, such as "30d" or "12h", or forever`)
}

// retentionFlags are the flags about how long messages are kept.
type retentionFlags struct{ messages, welcomes age }

func (r *retentionFlags) add(flags *pflag.FlagSet) {
	r.messages = age(node.Forever)
	flags.Var(&r.messages, "keep-messages", "how long to keep messages, such as 30d; `age` or forever")
	flags.Var(&r.welcomes, "keep-welcomes", "how long to keep welcomes; `age` or forever (default 90d with --keep-messages)")
}

func (r *retentionFlags) retention() node.Retention {
	return node.Retention{Messages: time.Duration(r.messages), Welcomes: time.Duration(r.welcomes)}
}
