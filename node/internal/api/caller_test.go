package api

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"
)

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// through is a call that a proxy at the address forwards, with lines of headers.
func through(address string, lines ...string) context.Context {
	return metadata.NewIncomingContext(from(address), metadata.MD{forwardedFor: lines})
}

func TestCaller(t *testing.T) {
	trusted := prefixes("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")
	for name, test := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"direct":                         {from("192.0.2.1"), "192.0.2.1"},
		"IPv4 inside IPv6":               {from("::ffff:192.0.2.1"), "192.0.2.1"},
		"one network of IPv6":            {from("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64"},
		"loopback of IPv6":               {from("::1"), "::1"},
		"no address":                     {context.Background(), "local"},
		"a stranger's claim":             {through("192.0.2.1", "198.51.100.7"), "192.0.2.1"},
		"by a proxy":                     {through("127.0.0.1", "198.51.100.7"), "198.51.100.7"},
		"by two proxies":                 {through("127.0.0.1", "198.51.100.7, 10.1.2.3"), "198.51.100.7"},
		"made up on the left":            {through("127.0.0.1", "203.0.113.9, 198.51.100.7, 10.1.2.3"), "198.51.100.7"},
		"several lines":                  {through("127.0.0.1", "203.0.113.9", "198.51.100.7", "10.1.2.3"), "198.51.100.7"},
		"IPv6":                           {through("fd00::1", "2001:db8::5"), "2001:db8::/64"},
		"with ports":                     {through("127.0.0.1", "203.0.113.9:9, [2001:db8::5]:443, 10.1.2.3:80"), "2001:db8::/64"},
		"in brackets":                    {through("127.0.0.1", "[2001:db8::5]"), "2001:db8::/64"},
		"with a zone":                    {through("127.0.0.1", "fe80::1%eth0"), "fe80::/64"},
		"nothing but proxies":            {through("127.0.0.1", "10.9.9.9, 10.1.2.3"), "10.9.9.9"},
		"garbage":                        {through("127.0.0.1", "unknown"), "127.0.0.1"},
		"garbage to the left of a proxy": {through("127.0.0.1", "198.51.100.7, unknown, 10.1.2.3"), "10.1.2.3"},
		"an empty header":                {through("127.0.0.1", ""), "127.0.0.1"},
		"no header":                      {from("127.0.0.1"), "127.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			addr, unnamed := callerAddr(test.ctx, trusted)
			if got := callerOf(addr).String(); got != test.want || unnamed {
				t.Errorf("got %s (unnamed proxy: %t), want %s", got, unnamed, test.want)
			}
		})
	}
}

// Whatever a caller writes into the header, the trusted proxies append who he
// is, and that is what he stays.
func TestCallerCannotChoose(t *testing.T) {
	trusted := prefixes("10.0.0.0/8", "::1/128")
	rapid.Check(t, func(t *rapid.T) {
		self := netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(0, 255).Draw(t, "self"))})
		entry := rapid.SampledFrom([]string{"10.1.1.1", "198.51.100.1", "unknown", "", "::1", "127.0.0.1", "a,b", "1.2.3.4:5", "\""})
		lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(entry, 0, 4).Draw(t, "entries"), rapid.SampledFrom([]string{",", ", ", " ,"}).Draw(t, "separator"))
		}), 0, 3).Draw(t, "lines")
		hops := rapid.IntRange(1, 3).Draw(t, "proxies")
		last := self.String()
		for i := range hops {
			if len(lines) > 0 && rapid.Bool().Draw(t, "same line") {
				lines[len(lines)-1] += ", " + last
			} else {
				lines = append(lines, last)
			}
			last = fmt.Sprintf("10.0.0.%d", i)
		}
		if got, _ := callerAddr(through(last, lines...), trusted); got != self {
			t.Fatalf("with %q from %s: %v, want %v", lines, last, got, self)
		}
	})
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("198.51.100.7, 10.1.2.3")
	f.Add("[2001:db8::5]:443,,%")
	f.Add("fe80::1%eth0")
	trusted := prefixes("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, line string) {
		addr, _ := callerAddr(through("10.0.0.1", line), trusted)
		if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
			t.Errorf("%q: %v", line, addr)
		}
	})
}

// A proxy on this machine that nobody named is one caller, with all that it
// forwards, and the log says so once, without an address.
func TestUnnamedProxy(t *testing.T) {
	var log bytes.Buffer
	l := NewLimiter(time.Now, slog.New(slog.NewTextHandler(&log, nil)), Limits{Rates: true})
	wantAllowed(t, l.publish(from("127.0.0.1"), 1000))
	wantAllowed(t, l.publish(through("192.0.2.1", "198.51.100.7"), 1))
	if log.Len() > 0 {
		t.Errorf("logged %q", &log)
	}
	for i := range 2 {
		wantAllowed(t, l.publish(through("127.0.0.1", fmt.Sprint("198.51.100.", i)), 1000))
	}
	forwarded := metadata.NewIncomingContext(from("127.0.0.1"), metadata.Pairs("forwarded", "for=198.51.100.7"))
	wantRefused(t, l.publish(forwarded, 1), "1 exceeds rate limit R127.0.0.1PUB")
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "trusted proxies") || strings.Contains(text, "198.51") {
		t.Errorf("logged %q", text)
	}
	// Named, its clients are told apart.
	l.Set(Limits{Rates: true, TrustedProxies: prefixes("127.0.0.0/8")})
	for i := range 5 {
		wantAllowed(t, l.publish(through("127.0.0.1", fmt.Sprint("198.51.100.", i)), 3000))
	}
}

func TestAddressLists(t *testing.T) {
	l := NewLimiter(time.Now, slog.New(slog.DiscardHandler), Limits{DenyAddresses: prefixes("192.0.2.0/24", "2001:db8::/32")})
	wantBlocked(t, l.read(from("192.0.2.7"), 0))
	wantBlocked(t, l.publish(from("2001:db8::1"), 1))
	_, err := l.stream(from("192.0.2.7"), 1)
	wantBlocked(t, err)
	wantAllowed(t, l.publish(from("198.51.100.7"), 1<<20)) // no rates

	l.Set(Limits{AllowAddresses: prefixes("192.0.2.0/24"), DenyAddresses: prefixes("192.0.2.7/32"), TrustedProxies: prefixes("10.0.0.1/32")})
	wantAllowed(t, l.read(from("192.0.2.8"), 0))
	wantBlocked(t, l.read(from("192.0.2.7"), 0))
	wantBlocked(t, l.read(from("198.51.100.7"), 0))
	wantBlocked(t, l.read(through("10.0.0.1", "192.0.2.7"), 0))
	wantAllowed(t, l.read(through("10.0.0.1", "192.0.2.9"), 0))
	wantBlocked(t, l.read(context.Background(), 0))
	if n := l.Refused()[limitAddress]; n != 7 {
		t.Errorf("%d refusals are counted, want 7", n)
	}

	l.Set(Limits{Rates: true, ExemptAddresses: prefixes("192.0.2.0/24")})
	wantAllowed(t, l.publish(from("192.0.2.8"), 1<<20))
	wantRefused(t, l.publish(from("192.0.3.8"), 3001), "3001 exceeds rate limit R192.0.3.8PUB")
}

func BenchmarkLimiter(b *testing.B) {
	l := NewLimiter(time.Now, slog.New(slog.DiscardHandler), Limits{Rates: true, TrustedProxies: prefixes("127.0.0.1/32"), ExemptAddresses: prefixes("192.0.2.0/24")})
	for name, ctx := range map[string]context.Context{
		"direct":  peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 3, 1), Port: 4000}}),
		"proxied": through("127.0.0.1", "192.0.3.1"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = l.read(ctx, 0) // also when nothing is left
			}
		})
	}
}

// Those who send requests that are no calls are told apart in the same way.
func TestVisitor(t *testing.T) {
	l := NewLimiter(time.Now, slog.New(slog.DiscardHandler), Limits{
		TrustedProxies: prefixes("127.0.0.1/32"), DenyAddresses: prefixes("192.0.2.0/24"), ExemptAddresses: prefixes("198.51.100.0/24"),
	})
	for name, test := range map[string]struct {
		connection, forwarded, want string
	}{
		"direct":      {"203.0.113.1:1", "", "203.0.113.1/32"},
		"IPv6":        {"[2001:db8::1%eth0]:1", "", "2001:db8::/64"},
		"proxy":       {"127.0.0.1:1", "203.0.113.1", "203.0.113.1/32"},
		"claim":       {"203.0.113.1:1", "198.51.100.1", "203.0.113.1/32"},
		"exempt":      {"127.0.0.1:1", "198.51.100.1", "invalid Prefix"},
		"no address":  {"pipe", "", "invalid Prefix"},
		"denied":      {"192.0.2.1:1", "", "request blocked"},
		"denied, too": {"127.0.0.1:1", "192.0.2.1", "request blocked"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := l.Visitor(&http.Request{RemoteAddr: test.connection, Header: http.Header{"X-Forwarded-For": {test.forwarded}}})
			if text := got.String(); err == nil && text != test.want || err != nil && status.Convert(err).Message() != test.want {
				t.Errorf("%v, %v, want %s", got, err, test.want)
			}
		})
	}
}
