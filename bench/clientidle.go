package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// idle measures what each of 100 clients of a process takes, beside a process with one.
func (b *clientBench) idle(ctx context.Context) error {
	memory := b.compare("per idle client of 100: resident", bytesUnit, bound{atMost: 1. / 2})
	descriptors := b.compare("per idle client of 100: descriptors", plainUnit, bound{absolute: 4})
	threads := b.compare("per idle client of 100: threads", plainUnit, bound{absolute: 0.1})
	const clients = 100
	for _, p := range b.parties {
		progress("idle, %v", p)
		accounts, err := b.registered(ctx, p, clients)
		if err != nil {
			return err
		}
		host, err := b.startParty(ctx, p)
		if err != nil {
			return err
		}
		defer host.stop()
		open := func(accounts []account) (usage, error) {
			for _, a := range accounts {
				a.host = host
				if err := a.open(ctx); err != nil {
					return usage{}, err
				}
			}
			if err := pause(ctx, 5*time.Second); err != nil {
				return usage{}, err
			}
			return usageOf(host.pid())
		}
		one, err := open(accounts[:1])
		if err != nil {
			return err
		}
		all, err := open(accounts[1:])
		if err != nil {
			return err
		}
		each := func(all, one float64) float64 { return (all - one) / (clients - 1) }
		memory.add(p, each(float64(all.resident), float64(one.resident)))
		memory.note += fmt.Sprintf("%v, with one client, %s; ", p, bytesUnit.format(float64(one.resident)))
		descriptors.add(p, each(float64(all.descriptors), float64(one.descriptors)))
		threads.add(p, each(float64(all.threads), float64(one.threads)))
	}
	return nil
}

// usage is what a process has of the system.
type usage struct {
	resident             uint64
	descriptors, threads int
}

func usageOf(pid int) (u usage, err error) {
	if u.resident, err = resident(pid); err != nil {
		return u, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.descriptors = len(fds)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	u.threads = len(tasks)
	return u, err
}

// bytes measures what each operation sends and receives.
func (b *clientBench) bytes(ctx context.Context) error {
	var times [2][]transfer
	for _, p := range b.parties {
		progress("bytes, %v", p)
		found, err := b.transfers(ctx, p, false)
		if err != nil {
			return err
		}
		times[p] = found
	}
	for i, t := range times[ours] {
		promised := bound{}
		if t.promised {
			promised.atMost = 1
		}
		up := b.compare("bytes up: "+t.what, bytesUnit, promised)
		down := b.compare("bytes down: "+t.what, bytesUnit, bound{})
		calls := b.compare("requests: "+t.what, plainUnit, bound{})
		for _, p := range b.parties {
			t := times[p][i]
			up.add(p, t.per(t.up))
			down.add(p, t.per(t.down))
			calls.add(p, t.per(int64(t.requests)))
			up.note += fmt.Sprintf("%v %s in messages; ", p, bytesUnit.format(t.per(t.upData)))
			calls.note += fmt.Sprintf("%v %s; ", p, t.methods())
		}
	}
	progress("bytes, ours padded")
	padded, err := b.transfers(ctx, ours, true)
	if err != nil {
		return err
	}
	for _, t := range padded {
		if t.promised {
			b.compare("bytes up, padded as by default: "+t.what, bytesUnit, bound{}).add(ours, t.per(t.up))
		}
	}
	return nil
}

// A transfer is what some repetitions of an operation sent and received.
type transfer struct {
	what     string
	promised bool
	times    int
	traffic
}

func (t transfer) per(n int64) float64 { return float64(n) / float64(t.times) }

func (b *clientBench) transfers(ctx context.Context, p party, padded bool) (found []transfer, err error) {
	proxy, err := startProxy(b.node.address)
	if err != nil {
		return nil, err
	}
	defer proxy.stop()
	a := b.newAccount(b.drivers[p])
	a.url, a.unpadded = proxy.url(), !padded
	// What happens is counted until nothing does for a while.
	count := func(what string, promised bool, times int, do func() error) error {
		before := proxy.traffic()
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		last := proxy.traffic()
		for still := 0; still < 3; {
			if err := pause(ctx, 50*time.Millisecond); err != nil {
				return err
			}
			now := proxy.traffic()
			if still++; now.up != last.up {
				still = 0
			}
			last = now
		}
		found = append(found, transfer{what, promised, times, last.since(before)})
		return nil
	}
	op := func(r request) func() error {
		return func() error { _, err := a.do(ctx, r); return err }
	}
	var dm, group, big answer
	create := func(made *answer, op string, users []string) func() error {
		return func() (err error) { *made, err = a.do(ctx, request{Op: op, Users: users}); return err }
	}
	one, more := b.others[248:249], b.others[247:248]
	steps := []struct {
		what     string
		promised bool
		times    int
		do       func() error
	}{
		{"register", false, 1, func() error { return a.open(ctx) }},
		{"create a direct message", false, 1, create(&dm, "dm", []string{b.author.inbox})},
		{"first text of a direct message", false, 1, func() error {
			return op(request{Op: "send", Conversations: []string{dm.ID}, Tag: "bytes", Count: 1, Size: 100})()
		}},
		{"a text of 100 bytes", true, 20, func() error {
			return op(request{Op: "send", Conversations: []string{dm.ID}, Tag: "bytes", Count: 20, Size: 100})()
		}},
		{"a read receipt", false, 1, func() error { return op(request{Op: "receipt", Conversations: []string{dm.ID}})() }},
		{"create a group with 10 others", false, 1, create(&group, "group", b.others[:10])},
		{"create a group with 100 others", true, 1, create(&group, "group", b.others[:100])},
		{"create a group with 248 others", false, 1, create(&big, "group", b.others[:248])},
		{"add one to 249", true, 1, func() error {
			return op(request{Op: "add", Conversations: []string{big.ID}, Users: one})()
		}},
		{"remove one of 250", false, 1, func() error {
			return op(request{Op: "remove", Conversations: []string{big.ID}, Users: more})()
		}},
		{"sync a conversation without news", false, 5, func() error {
			for range 5 {
				if err := op(request{Op: "sync", Conversations: []string{dm.ID}})(); err != nil {
					return err
				}
			}
			return nil
		}},
		{"sync all 5 conversations without news", false, 5, func() error {
			for range 5 {
				if err := op(request{Op: "syncAll"})(); err != nil {
					return err
				}
			}
			return nil
		}},
	}
	for _, s := range steps {
		if err := count(s.what, s.promised, s.times, s.do); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// methods are the requests of an operation by name, the most frequent first.
func (t transfer) methods() string {
	names := make([]string, 0, len(t.calls))
	for name := range t.calls {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(t.calls[y], t.calls[x]), cmp.Compare(x, y))
	})
	text := ""
	for _, name := range names {
		text += fmt.Sprintf(" %s %.3g", name[strings.LastIndexByte(name, '/')+1:], t.per(int64(t.calls[name])))
	}
	return strings.TrimSpace(text)
}
