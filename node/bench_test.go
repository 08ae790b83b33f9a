package node_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

const benchSize = 1 << 10 // of a message

// Publishing to a node on disk: each call returns when its message is durable.
func BenchmarkPublish(b *testing.B) {
	for _, bc := range []struct {
		name            string
		callers, groups int
	}{
		{"64 callers own groups", 64, 64},
		{"16 callers one group", 16, 1},
		{"1 caller", 1, 1},
	} {
		b.Run(bc.name, func(b *testing.B) {
			n := start(b, node.Options{Data: b.TempDir()})
			connections := make([]*client, min(8, bc.callers))
			for i := range connections {
				connections[i] = dial(b, n)
			}
			body := string(make([]byte, benchSize))
			var next atomic.Int64
			var callers errgroup.Group
			b.SetBytes(benchSize)
			b.ReportAllocs()
			b.ResetTimer()
			groups := make([][]byte, bc.groups)
			for i := range groups {
				groups[i] = newGroupID()
			}
			for i := range bc.callers {
				c, group := connections[i%len(connections)], groups[i%len(groups)]
				callers.Go(func() error {
					for {
						number := next.Add(1)
						if number > int64(b.N) {
							return nil
						}
						_, err := c.mls.SendGroupMessages(b.Context(), groupRequest(application(group, fmt.Sprint(number, body))))
						if err != nil {
							return err
						}
					}
				})
			}
			if err := callers.Wait(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// Reading a page of 100 messages from the middle of a topic.
func BenchmarkPage(b *testing.B) {
	c, ctx := dial(b, start(b, node.Options{Data: b.TempDir()})), b.Context()
	group, body := newGroupID(), string(make([]byte, benchSize))
	for i := range 10 {
		var batch [][]byte
		for j := range 100 {
			batch = append(batch, application(group, fmt.Sprint(100*i+j, body)))
		}
		must(c.mls.SendGroupMessages(ctx, groupRequest(batch...)))(b)
	}
	cursor := must(groupLog.all(ctx, c, group, 0))(b)[499].id
	b.SetBytes(100 * benchSize)
	b.ReportAllocs()
	for b.Loop() {
		page, _, err := groupLog.page(ctx, c, group, &mlsapi.PagingInfo{Direction: ascending, IdCursor: cursor})
		if err != nil || len(page) != 100 {
			b.Fatal(len(page), err)
		}
	}
}

// From the publishing of a message until all the streams of its group have it.
func BenchmarkDelivery(b *testing.B) {
	for _, streams := range []int{1, 100} {
		b.Run(fmt.Sprint(streams, " streams"), func(b *testing.B) {
			n, ctx := start(b, node.Options{Data: b.TempDir()}), b.Context()
			c, group, body := dial(b, n), newGroupID(), string(make([]byte, benchSize))
			reader := dial(b, n)
			open := make([]stream, streams)
			for i := range open {
				open[i] = must(groupLog.open(ctx, reader, filter{topic: group}))(b)
			}
			number := 0
			b.ReportAllocs()
			for b.Loop() {
				number++
				must(c.mls.SendGroupMessages(ctx, groupRequest(application(group, fmt.Sprint(number, body)))))(b)
				for _, s := range open {
					must(s.next())(b)
				}
			}
		})
	}
}

// How fast messages reach a stream that has some topics, as they are published.
func BenchmarkStream(b *testing.B) {
	const messages, batch = 10_000, 50
	for _, kind := range []string{"SubscribeGroupMessages", "Subscribe"} {
		b.Run(kind, func(b *testing.B) {
			n, ctx := start(b, node.Options{}), b.Context()
			c, reader, body := dial(b, n), dial(b, n), string(make([]byte, 256))
			groups := make([][]byte, 10)
			var filters []filter
			var topics []*mlsapi.SubscribeRequest_V1_Mutate_Subscription
			for i := range groups {
				groups[i] = newGroupID()
				filters = append(filters, filter{topic: groups[i]})
				topics = append(topics, groupLog.add(groups[i], 0))
			}
			var read func() error // until all messages of a round have come
			if kind == "Subscribe" {
				s := openSubscribe(ctx, b, reader)
				s.mutate(adds(1, topics...))
				s.wave(1)
				read = func() error {
					for got := 0; got < messages; {
						res, err := s.Recv()
						if err != nil {
							return err
						}
						got += len(res.GetV1().GetMessages().GetGroupMessages())
					}
					return nil
				}
			} else {
				s := must(groupLog.open(ctx, reader, filters...))(b)
				read = func() error {
					for range messages {
						if _, err := s.next(); err != nil {
							return err
						}
					}
					return nil
				}
			}
			number := 0
			b.ReportAllocs()
			for b.Loop() {
				var reading errgroup.Group
				reading.Go(read)
				for range messages / batch {
					var payloads [][]byte
					for range batch {
						number++
						payloads = append(payloads, application(groups[number%len(groups)], fmt.Sprint(number, body)))
					}
					must(c.mls.SendGroupMessages(ctx, groupRequest(payloads...)))(b)
				}
				if err := reading.Wait(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(messages)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// starts starts a node and stops it again, n times, and returns how long the
// starts took, sorted.
func starts(t testing.TB, options node.Options, n int) []time.Duration {
	t.Helper()
	times := make([]time.Duration, n)
	for i := range times {
		begin := time.Now()
		running, err := launch(options)
		times[i] = time.Since(begin)
		if err != nil {
			t.Fatal(err)
		}
		if err := running.Close(); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(times)
	return times
}

// Starting a node: in memory, and on a directory with 10,000 messages. The time
// of an iteration includes stopping it; the metric does not.
func BenchmarkStart(b *testing.B) {
	full := node.Options{Data: b.TempDir()}
	running := must(launch(full))(b)
	if err := groupLog.fill(context.Background(), dial(b, running), newGroupID(), 0, 10_000); err != nil {
		b.Fatal(err)
	}
	if err := running.Close(); err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name    string
		options node.Options
	}{{"ephemeral", node.Options{}}, {"10,000 messages", full}} {
		b.Run(bc.name, func(b *testing.B) {
			var times []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				times = append(times, starts(b, bc.options, 1)...)
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "median-start-ms")
		})
	}
}

// A node in memory starts in less than 20 ms, so that every test can have its
// own. The long tier insists on it.
func TestStartMedian(t *testing.T) {
	times := starts(t, node.Options{}, 51)
	median := times[len(times)/2]
	t.Logf("CHECK start: median of an ephemeral node: %v", median)
	if proof && median >= 20*time.Millisecond {
		t.Errorf("the median start took %v", median)
	}
}
