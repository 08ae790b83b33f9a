package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

func (b *clientBench) register(ctx context.Context) error {
	row := b.compare("register", milliseconds, bound{atMost: 1. / 2})
	if _, err := b.newClients(ctx); err != nil { // to warm up
		return err
	}
	return b.alternate("register", func(_ int, p party) error {
		var times []time.Duration
		for range 5 {
			a, err := b.newClient(ctx, p)
			if err != nil {
				return err
			}
			times = append(times, a.took)
		}
		row.addTimes(p, times...)
		return nil
	})
}

func (b *clientBench) reopen(ctx context.Context) error {
	first := b.compare("reopen, first in a process", milliseconds, bound{atMost: 1. / 5})
	again := b.compare("reopen, further ones", milliseconds, bound{atMost: 1. / 5})
	const each = 5
	return b.alternate("reopen", func(_ int, p party) error {
		accounts, err := b.registered(ctx, p, each)
		if err != nil {
			return err
		}
		host, err := b.startParty(ctx, p)
		if err != nil {
			return err
		}
		defer host.stop()
		var times []time.Duration
		for _, a := range accounts {
			inbox := a.inbox
			a.host = host
			if err := a.open(ctx); err != nil {
				return err
			}
			if a.inbox != inbox {
				return fmt.Errorf("%w: inbox %s, was %s", errWrong, a.inbox, inbox)
			}
			times = append(times, a.took)
		}
		first.addTimes(p, times[0])
		again.addTimes(p, times[1:]...)
		return nil
	})
}

// registered are clients that were registered by a process that has ended.
func (b *clientBench) registered(ctx context.Context, p party, n int) ([]account, error) {
	host, err := b.startParty(ctx, p)
	if err != nil {
		return nil, err
	}
	defer host.stop()
	all := make([]account, n)
	for i := range all {
		all[i] = b.newAccount(host)
		if err := all[i].open(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (b *clientBench) create(ctx context.Context) error {
	dms := b.compare("create a direct message", milliseconds, bound{atMost: 1. / 2})
	sizes := []int{10, 100, 249}
	var groups []*comparison
	for _, n := range sizes {
		groups = append(groups, b.compare(fmt.Sprintf("create a group with %d others", n), milliseconds, bound{atMost: 1. / 2}))
	}
	clients, err := b.acquainted(ctx)
	if err != nil {
		return err
	}
	const each = 5
	return b.alternate("create", func(round int, p party) error {
		var times []time.Duration
		for i := range each {
			made, err := clients[p].do(ctx, request{Op: "dm", Users: b.others[round*each+i:][:1]})
			if err != nil {
				return err
			}
			times = append(times, made.Took[0])
		}
		dms.addTimes(p, times...)
		for i, n := range sizes {
			times = nil
			for range 3 - i {
				made, err := clients[p].do(ctx, request{Op: "group", Users: b.others[:n]})
				if err != nil {
					return err
				}
				if err := expect("members", made.Count, n+1); err != nil {
					return err
				}
				times = append(times, made.Took[0])
			}
			groups[i].addTimes(p, times...)
		}
		return nil
	})
}

// bigGroup is about what a member of a group of 250 does.
func (b *clientBench) bigGroup(ctx context.Context) error {
	adds := b.compare("group of 250: add", milliseconds, bound{atMost: 1. / 2})
	removes := b.compare("group of 250: remove", milliseconds, bound{atMost: 1. / 2})
	sends := b.compare("group of 250: send", milliseconds, bound{atMost: 1. / 3})
	clients, err := b.newClients(ctx)
	if err != nil {
		return err
	}
	var groups [2]string
	var sent [2]int
	for _, p := range b.parties {
		made, err := clients[p].do(ctx, request{Op: "group", Users: append([]string{b.author.inbox}, b.others[:247]...)})
		if err != nil {
			return err
		}
		groups[p] = made.ID
	}
	if err := b.alternate("group of 250", func(_ int, p party) error {
		var added, removed []time.Duration
		in, one := []string{groups[p]}, b.others[247:248]
		for range 3 {
			add, err := clients[p].do(ctx, request{Op: "add", Conversations: in, Users: one})
			if err != nil {
				return err
			}
			if err := expect("members", add.Count, 250); err != nil {
				return err
			}
			added = append(added, add.Took[0])
			got, err := clients[p].do(ctx, request{Op: "send", Conversations: in, Tag: "big", Count: 5, Size: 100})
			if err != nil {
				return err
			}
			sent[p] += 5
			sends.addTimes(p, got.Took...)
			remove, err := clients[p].do(ctx, request{Op: "remove", Conversations: in, Users: one})
			if err != nil {
				return err
			}
			if err := expect("members", remove.Count, 249); err != nil {
				return err
			}
			removed = append(removed, remove.Took[0])
		}
		adds.addTimes(p, added...)
		removes.addTimes(p, removed...)
		return nil
	}); err != nil {
		return err
	}
	for _, p := range b.parties {
		if err := b.author.received(ctx, sent[p], groups[p]); err != nil {
			return err
		}
	}
	return nil
}

// bigGroupReceived is about what a member of a group of 250 learns of: somebody else,
// the same for both, does it.
func (b *clientBench) bigGroupReceived(ctx context.Context) error {
	syncs := b.compare("group of 250: sync a commit", milliseconds, bound{atMost: 1. / 4})
	joins := b.compare("group of 250: join", milliseconds, bound{atMost: 1. / 2})
	clients, err := b.newClients(ctx)
	if err != nil {
		return err
	}
	users := slices.Clone(b.others[:246])
	for _, p := range b.parties {
		users = append(users, clients[p].inbox)
	}
	made, err := b.author.do(ctx, request{Op: "group", Users: users})
	if err != nil {
		return err
	}
	members := len(users) + 1
	group := []string{made.ID}
	for _, p := range b.parties {
		if _, err := clients[p].do(ctx, request{Op: "join"}); err != nil {
			return err
		}
	}
	one := b.others[246:247]
	var times [2][]time.Duration
	for i := range 4 * b.rounds {
		op, want := "add", members+1
		if i%2 == 1 {
			op, want = "remove", members
		}
		if _, err := b.author.do(ctx, request{Op: op, Conversations: group, Users: one}); err != nil {
			return err
		}
		order := b.parties
		if i%4 > 1 && len(order) == 2 {
			order = []party{official, ours}
		}
		for _, p := range order {
			got, err := clients[p].do(ctx, request{Op: "sync", Conversations: group})
			if err != nil {
				return err
			}
			times[p] = append(times[p], got.Took[0])
			now, err := clients[p].do(ctx, request{Op: "members", Conversations: group})
			if err != nil {
				return err
			}
			if err := expect(fmt.Sprintf("members after %s, %v", op, p), now.Count, want); err != nil {
				return err
			}
		}
	}
	for _, p := range b.parties {
		for i := range b.rounds {
			syncs.addTimes(p, times[p][4*i:][:4]...)
		}
	}
	return b.joins(ctx, joins)
}

// joins lets new clients find themselves in a group of 250.
func (b *clientBench) joins(ctx context.Context, row *comparison) error {
	const each = 2
	var joiners [2][]account
	var inboxes []string
	for range each * b.rounds {
		for _, p := range b.parties {
			a, err := b.newClient(ctx, p)
			if err != nil {
				return err
			}
			joiners[p] = append(joiners[p], a)
			inboxes = append(inboxes, a.inbox)
		}
	}
	made, err := b.author.do(ctx, request{Op: "group", Users: append(inboxes, b.others[:249-len(inboxes)]...)})
	if err != nil {
		return err
	}
	return b.alternate("join", func(round int, p party) error {
		var times []time.Duration
		for _, a := range joiners[p][each*round:][:each] {
			got, err := a.do(ctx, request{Op: "join"})
			if err != nil {
				return err
			}
			if err := expect("conversations", got.Count, 1); err != nil {
				return err
			}
			now, err := a.do(ctx, request{Op: "members", Conversations: []string{made.ID}})
			if err != nil {
				return err
			}
			if err := expect("members", now.Count, 250); err != nil {
				return err
			}
			times = append(times, got.Took[0])
		}
		row.addTimes(p, times...)
		return nil
	})
}

func (b *clientBench) send(ctx context.Context) error {
	row := b.compare("send one text, awaited", milliseconds, bound{atMost: 1. / 3})
	var clients [2]account
	var dms [2]string
	for _, p := range b.parties {
		var err error
		if clients[p], dms[p], err = b.talk(ctx, p); err != nil {
			return err
		}
	}
	const each = 30
	if err := b.alternate("send", func(_ int, p party) error {
		got, err := clients[p].do(ctx, request{Op: "send", Conversations: []string{dms[p]}, Tag: "send", Count: each, Size: 100})
		row.addTimes(p, got.Took...)
		return err
	}); err != nil {
		return err
	}
	for _, p := range b.parties {
		if err := b.author.received(ctx, each*b.rounds+1, dms[p]); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	return nil
}

// talk is a new client with a direct message with the author, in which a text was
// sent.
func (b *clientBench) talk(ctx context.Context, p party) (a account, dm string, err error) {
	if a, err = b.newClient(ctx, p); err != nil {
		return a, "", err
	}
	made, err := a.do(ctx, request{Op: "dm", Users: []string{b.author.inbox}})
	if err == nil {
		_, err = a.do(ctx, request{Op: "send", Conversations: []string{made.ID}, Tag: "first", Count: 1})
	}
	return a, made.ID, err
}

// publishTexts has a new client for each turn, as the official one stops itself at 5,000
// requests a minute.
func (b *clientBench) publishTexts(ctx context.Context) error {
	row := b.compare("1,000 texts, optimistic then published", rate, bound{atLeast: 5})
	const texts = 1000
	return b.alternate("1,000 texts", func(_ int, p party) error {
		a, dm, err := b.talk(ctx, p)
		if err != nil {
			return err
		}
		got, err := a.do(ctx, request{Op: "publish", Conversations: []string{dm}, Tag: "publish", Count: texts, Size: 100})
		if err != nil {
			return err
		}
		row.addRate(p, texts, got.All)
		return b.author.received(ctx, texts+1, dm)
	})
}

// concurrent, too, has new clients.
func (b *clientBench) concurrent(ctx context.Context) error {
	for _, c := range []struct {
		what          string
		groups, count int
		least         float64
	}{
		{"64 concurrent sends in one group", 1, 192, 20},
		{"64 concurrent sends over 64 groups", 64, 960, 5},
	} {
		row := b.compare(c.what, rate, bound{atLeast: c.least})
		if err := b.alternate(c.what, func(_ int, p party) error {
			a, err := b.newClient(ctx, p)
			if err != nil {
				return err
			}
			var groups []string
			for range c.groups {
				made, err := a.do(ctx, request{Op: "group", Users: []string{b.author.inbox, b.others[0]}})
				if err != nil {
					return err
				}
				groups = append(groups, made.ID)
			}
			got, err := a.do(ctx, request{Op: "send", Conversations: groups, Tag: "concurrent", Count: c.count, Workers: 64, Size: 100})
			if err != nil {
				return err
			}
			row.addRate(p, c.count, got.All)
			return b.author.received(ctx, c.count, groups...)
		}); err != nil {
			return err
		}
	}
	return nil
}
