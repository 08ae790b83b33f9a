package api

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// forwardedFor is the header in which each proxy appends where a call came from.
const forwardedFor = "x-forwarded-for"

// forwardingHeaders are those by which a proxy can be known.
var forwardingHeaders = []string{forwardedFor, "forwarded", "x-real-ip", "via"}

// callerAddr returns where a call comes from: the address of the connection,
// or, if that is a trusted proxy's, the last one in the header that isn't. What
// is to the left of it may have been made up. The zero one is for connections
// without address, such as those inside a process.
//
// Unnamed tells of a proxy on this machine that isn't trusted. All its clients
// are then one caller: whoever believed the header would let callers of a node
// without a proxy choose who they are.
func callerAddr(ctx context.Context, trusted []netip.Prefix) (addr netip.Addr, unnamed bool) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return netip.Addr{}, false
	}
	header := func(name string) []string { return metadata.ValueFromIncomingContext(ctx, name) }
	return forwardedAddr(p.Addr.String(), header, trusted)
}

// forwardedAddr is [callerAddr] for whatever has an address and headers.
func forwardedAddr(connection string, header func(name string) []string, trusted []netip.Prefix) (addr netip.Addr, unnamed bool) {
	connected, err := netip.ParseAddrPort(connection)
	if err != nil {
		return netip.Addr{}, false
	}
	addr = plain(connected.Addr())
	if !contains(trusted, addr) {
		return addr, addr.IsLoopback() && isForwarded(header)
	}
	for _, line := range slices.Backward(header(forwardedFor)) {
		entries := strings.Split(line, ",")
		for _, entry := range slices.Backward(entries) {
			from, err := parseForwarded(entry)
			if err != nil {
				return addr, false
			}
			if addr = from; !contains(trusted, addr) {
				return addr, false
			}
		}
	}
	return addr, false
}

func isForwarded(header func(name string) []string) bool {
	return slices.ContainsFunc(forwardingHeaders, func(name string) bool { return len(header(name)) > 0 })
}

// parseForwarded reads an entry of the header: an address, which some proxies
// write with its port.
func parseForwarded(entry string) (netip.Addr, error) {
	entry = strings.TrimSpace(entry)
	if connected, err := netip.ParseAddrPort(entry); err == nil {
		return plain(connected.Addr()), nil
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(entry, "["), "]"))
	return plain(addr), err
}

// plain makes addresses the same however a connection says them.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// A caller is who has a limit in common: an IPv4 address, or the 64 bits of an
// IPv6 address that name a network, in which anybody has as many addresses as he
// likes. The zero one is for all without address.
type caller struct{ netip.Prefix }

func callerOf(addr netip.Addr) caller {
	bits := addr.BitLen()
	if addr.Is6() && !addr.IsLoopback() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // of the zero address it is zero
	return caller{prefix}
}

func (c caller) String() string {
	switch {
	case !c.IsValid():
		return "local"
	case c.IsSingleIP():
		return c.Addr().String()
	}
	return c.Prefix.String()
}
