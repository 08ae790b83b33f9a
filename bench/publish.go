package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// perConnection is how many callers share a connection.
const perConnection = 8

// A publisher publishes to one group, alone or with others, and knows what was
// acknowledged.
type publisher struct {
	conn *grpc.ClientConn
	next *publication
	id   uint64 // in the upper bits of his marks
	sent uint64
}

// send publishes one message.
func (p *publisher) send(ctx context.Context) error {
	return p.sendAt(ctx, time.Now())
}

func (p *publisher) sendAt(ctx context.Context, at time.Time) error {
	req := p.next.requestAt(p.id<<40|(p.sent+1), at.UnixNano())
	if err := p.conn.Invoke(ctx, mlsapi.MlsApi_SendGroupMessages_FullMethodName, &raw{req}, &raw{}); err != nil {
		return err
	}
	p.sent += uint64(len(p.next.messages))
	return nil
}

// publishers are as many, of whom each has a connection with others and group i,
// modulo the number of groups, from first on.
func publishers(conns connections, n, groups, first int) []*publisher {
	all := make([]*publisher, n)
	for i := range all {
		all[i] = &publisher{conn: conns[i%len(conns)], next: newPublication(groupID(first+i%groups), 1), id: uint64(i + 1)}
	}
	return all
}

func senders(all []*publisher) []caller {
	callers := make([]caller, len(all))
	for i, p := range all {
		callers[i] = p.send
	}
	return callers
}

// verifySent reads groups and compares them with what was acknowledged: each
// message once, those of one publisher in his order.
func verifySent(ctx context.Context, conn *grpc.ClientConn, all []*publisher, groups, first int) error {
	seen := make(map[uint64]uint64, len(all))
	for i := range groups {
		if err := readGroup(ctx, conn, groupID(first+i), func(_ uint64, data []byte) error {
			return inOrder(seen, markOf(data))
		}); err != nil {
			return err
		}
	}
	for _, p := range all {
		if seen[p.id] != p.sent {
			return fmt.Errorf("of %d acknowledged messages of publisher %d there are %d", p.sent, p.id, seen[p.id])
		}
	}
	return nil
}

// inOrder counts the messages that each publisher has sent.
func inOrder(seen map[uint64]uint64, mark uint64) error {
	id, count := mark>>40, mark&(1<<40-1)
	if count != seen[id]+1 {
		return fmt.Errorf("message %d of publisher %d after %d", count, id, seen[id])
	}
	seen[id] = count
	return nil
}

// withNode runs do with a new node and connections to it and to the bare server.
func (b *bench) withNode(ctx context.Context, name string, n int, do func(node *process, ours, bare connections) error) error {
	data := b.folder(name)
	defer os.RemoveAll(data)
	node, err := startNode(ctx, b.xmtp, data)
	if err != nil {
		return err
	}
	defer node.stop()
	return b.withConnections(node, n, do)
}

func (b *bench) withConnections(node *process, n int, do func(node *process, ours, bare connections) error) error {
	ours, err := dial(node.address, n)
	if err != nil {
		return err
	}
	defer ours.Close()
	bare, err := dial(b.echo.address, n)
	if err != nil {
		return err
	}
	defer bare.Close()
	return do(node, ours, bare)
}

// publish compares rates of publishing.
func (b *bench) publish(ctx context.Context) error {
	for _, c := range []struct {
		name            string
		callers, groups int
		least           float64
		bound           string
	}{
		{"publish, 64 callers in own groups", 64, 64, 1. / 2, "at least 1/2 of the echo's rate"},
		{"publish, 16 callers in one group", 16, 1, 1. / 3, "at least 1/3 of the echo's rate"},
	} {
		if err := b.withNode(ctx, "publish", c.callers/perConnection, func(node *process, ours, bare connections) error {
			all := publishers(ours, c.callers, c.groups, 0)
			size := len(all[0].next.encoded)
			rates, err := b.rates(ctx, side{node, senders(all)}, side{b.echo, echoCallers(bare, c.callers, size, 0)})
			if err != nil {
				return err
			}
			if err := verifySent(ctx, ours[0], all, c.groups, 0); err != nil {
				return err
			}
			rate, echo := rates.medians()
			b.report(rates.ratio() >= c.least, c.name, c.bound, "%.0f/s, echo %.0f/s, ratio %.2f", rate, echo, rates.ratio())
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// latency compares how long one caller waits. What a message costs at least is a
// call, and bytes that are appended to a file and synced.
func (b *bench) latency(ctx context.Context) error {
	return b.withNode(ctx, "latency", 1, func(_ *process, ours, bare connections) error {
		all := publishers(ours, 1, 1, 0)
		log, err := os.Create(filepath.Join(b.dir, "appended"))
		if err != nil {
			return err
		}
		defer log.Close()
		record := all[0].next.encoded
		things := [][]caller{
			senders(all),
			echoCallers(bare, 1, len(record), 0),
			{func(context.Context) error {
				_, err := log.Write(record)
				return errors.Join(err, syncData(log))
			}},
		}
		result := &pairs{}
		var latest [3]float64
		var appends []float64
		measured := 0
		if err := b.alternate(ctx, func(ctx context.Context, which int, warming bool) error {
			made, err := makeCalls(ctx, things[which], b.turn/2)
			if err != nil || warming {
				return err
			}
			latest[which] = float64(median(made.times).Nanoseconds())
			if measured++; measured%len(things) == 0 {
				result.add(latest[0], 2*latest[1]+latest[2])
				appends = append(appends, latest[2])
			}
			return nil
		}, len(things)); err != nil {
			return err
		}
		if err := verifySent(ctx, ours[0], all, 1, 0); err != nil {
			return err
		}
		p50, allowed := result.medians()
		b.report(result.ratio() <= 1, "publish, 1 caller, p50", "at most 2 x echo + append and sync",
			"%s, allowed %s (append and sync %s), ratio %.2f", micros(p50), micros(allowed), micros(median(appends)), result.ratio())
		return nil
	})
}

func micros(nanoseconds float64) time.Duration {
	return time.Duration(nanoseconds).Round(time.Microsecond)
}
