package main

import (
	"context"
	"fmt"
	"slices"
)

// growth shows how operations grow with the size of the group and the length of its
// history. Sending and receiving must not.
func (b *clientBench) growth(ctx context.Context) error {
	clients, err := b.acquainted(ctx)
	if err != nil {
		return err
	}
	if err := b.bySize(ctx, clients); err != nil {
		return err
	}
	return b.byHistory(ctx, clients, []int{100, 1_000, 10_000})
}

func (b *clientBench) longHistory(ctx context.Context) error {
	long := *b
	long.parties = []party{ours}
	clients, err := long.newClients(ctx)
	if err != nil {
		return err
	}
	err = long.byHistory(ctx, clients, []int{100, 100_000})
	b.rows, b.clients = long.rows, long.clients
	return err
}

// bySize measures in groups of 2 to 250 members.
func (b *clientBench) bySize(ctx context.Context, clients [2]account) error {
	sizes := []int{2, 10, 50, 100, 250}
	rows := map[string][]*comparison{}
	for _, op := range []string{"send", "receive", "add", "remove"} {
		for _, size := range sizes {
			rows[op] = append(rows[op], b.compare(fmt.Sprintf("%s, %d members", op, size), milliseconds, bound{}))
		}
	}
	for i, size := range sizes {
		var groups [2][]string
		for _, p := range b.parties {
			// One of the members is added and removed.
			made, err := clients[p].do(ctx, request{Op: "group", Users: append([]string{b.author.inbox}, b.others[:max(size-3, 0)]...)})
			if err != nil {
				return err
			}
			groups[p] = []string{made.ID}
			if err := b.author.received(ctx, 0, made.ID); err != nil {
				return err
			}
		}
		if err := b.alternate(fmt.Sprintf("groups of %d", size), func(_ int, p party) error {
			in, one := groups[p], b.others[248:249]
			for range 2 {
				if size > 2 {
					got, err := clients[p].do(ctx, request{Op: "add", Conversations: in, Users: one})
					if err != nil {
						return err
					}
					if err := expect("members", got.Count, size); err != nil {
						return err
					}
					rows["add"][i].addTimes(p, got.Took...)
				}
				if err := b.sendAndReceive(ctx, clients[p], p, in, rows["send"][i], rows["receive"][i]); err != nil {
					return err
				}
				if size > 2 {
					got, err := clients[p].do(ctx, request{Op: "remove", Conversations: in, Users: one})
					if err != nil {
						return err
					}
					rows["remove"][i].addTimes(p, got.Took...)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	flat(rows["send"])
	flat(rows["receive"])
	// Nobody is added or removed in a group of 2.
	b.rows = slices.DeleteFunc(b.rows, func(c *comparison) bool { return len(c.turns[ours]) == 0 })
	return nil
}

// byHistory measures in groups with so many messages.
func (b *clientBench) byHistory(ctx context.Context, clients [2]account, lengths []int) error {
	rows := map[string][]*comparison{}
	for _, op := range []string{"send", "receive"} {
		for _, n := range lengths {
			rows[op] = append(rows[op], b.compare(fmt.Sprintf("%s, after %d messages", op, n), milliseconds, bound{}))
		}
	}
	var groups [2][]string
	for _, p := range b.parties {
		made, err := clients[p].do(ctx, request{Op: "group", Users: []string{b.author.inbox, b.others[0]}})
		if err != nil {
			return err
		}
		groups[p] = []string{made.ID}
	}
	have := [2]int{}
	for i, n := range lengths {
		for _, p := range b.parties {
			if err := b.author.received(ctx, have[p], groups[p]...); err != nil {
				return err
			}
			progress("history of %d, %v", n, p)
			if _, err := b.author.do(ctx, request{Op: "publish", Conversations: groups[p], Tag: fmt.Sprint("history", n), Count: n - have[p], Size: 100}); err != nil {
				return err
			}
			if err := clients[p].received(ctx, n, groups[p]...); err != nil {
				return err
			}
			have[p] = n
		}
		if err := b.alternate(fmt.Sprintf("history of %d", n), func(_ int, p party) error {
			have[p] += 2 * growthTexts
			return b.sendAndReceive(ctx, clients[p], p, groups[p], rows["send"][i], rows["receive"][i])
		}); err != nil {
			return err
		}
	}
	flat(rows["send"])
	flat(rows["receive"])
	return nil
}

const growthTexts = 20

// sendAndReceive sends texts, and syncs as many of the author's, of which the time of
// one is noted.
func (b *clientBench) sendAndReceive(ctx context.Context, a account, p party, group []string, sends, receives *comparison) error {
	got, err := a.do(ctx, request{Op: "send", Conversations: group, Tag: "growth", Count: growthTexts, Size: 100})
	if err != nil {
		return err
	}
	sends.addTimes(p, got.Took...)
	before, err := a.texts(ctx, group...)
	if err != nil {
		return err
	}
	if _, err := b.author.do(ctx, request{Op: "publish", Conversations: group, Tag: "growth", Count: growthTexts, Size: 100}); err != nil {
		return err
	}
	if got, err = a.do(ctx, request{Op: "sync", Conversations: group}); err != nil {
		return err
	}
	receives.addTimes(p, got.Took[0]/growthTexts)
	after, err := a.texts(ctx, group...)
	if err != nil {
		return err
	}
	return expect("texts", after-before, growthTexts)
}

// flat promises that the last of some rows is not much slower than the first. Times
// of things that wait for a disk vary by a half by themselves.
func flat(rows []*comparison) {
	first, last := rows[0], rows[len(rows)-1]
	last.bound = bound{growth: 1.5, first: first}
	for _, p := range []party{ours, official} {
		if growth, ok := last.growth(p); ok {
			last.note += fmt.Sprintf("%v %.2f x the first; ", p, growth)
		}
	}
}
