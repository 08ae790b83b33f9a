package node_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"pgregory.net/rapid"

	"github.com/go-xmtp/go-xmtp/node"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// asked is a Mutate and what had been published when it was sent.
type asked struct {
	*mlsapi.SubscribeRequest_V1_Mutate
	published map[string]int // messages by topic
}

// conversation is all that was said on one Subscribe stream.
type conversation struct {
	mutates map[uint64]asked
	pings   []uint64

	mu     sync.Mutex
	frames []*mlsapi.SubscribeResponse_V1
	// What the frames so far have brought.
	complete map[uint64]bool
	last     map[string]string // the data of each topic's last message
	err      error             // why the stream ended
}

func (c *conversation) read(s mlsapi.MlsApi_SubscribeClient) {
	for {
		res, err := s.Recv()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		v1 := res.GetV1()
		c.frames = append(c.frames, v1)
		for _, e := range entriesOf(v1.GetMessages()) {
			c.last[e.topic] = e.data
		}
		if done := v1.GetCatchupComplete(); done != nil {
			c.complete[done.MutateId] = true
		}
		c.mu.Unlock()
	}
}

func (c *conversation) is(what func() bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return what()
}

// modelTopic is what the frames must have led to for a topic.
type modelTopic struct {
	at   uint64 // the last message, or the cursor
	wave uint64 // that it belongs or belonged to; 0: never added
	live bool
}

// judge goes through the frames and finds the first that must not be.
func (c *conversation) judge(logs map[string][]entry) error {
	topics := map[string]*modelTopic{}
	for topic := range logs {
		topics[topic] = &modelTopic{}
	}
	// enter has a wave take a topic, from the lowest cursor of its Mutate.
	enter := func(topic string, wave uint64) (*modelTopic, error) {
		state, found := topics[topic], false
		if state.wave == wave {
			return state, nil
		}
		if wave < state.wave {
			return nil, fmt.Errorf("wave %d has a topic that wave %d had taken", wave, state.wave)
		}
		next := &modelTopic{at: 1<<64 - 1, wave: wave}
		for _, add := range c.mutates[wave].Adds {
			if string(add.Topic[1:]) == topic {
				found, next.at = true, min(next.at, add.IdCursor)
			}
		}
		if !found {
			return nil, fmt.Errorf("wave %d has a topic that its Mutate didn't add", wave)
		}
		topics[topic] = next
		return next, nil
	}
	complete, pongs, lanes := map[uint64]bool{}, 0, map[uint64]uint64{}
	for i, v1 := range c.frames {
		var completes uint64 // the wave that the next frame completes
		if i+1 < len(c.frames) {
			completes = c.frames[i+1].GetCatchupComplete().GetMutateId()
		}
		switch v := v1.Response.(type) {
		case *mlsapi.SubscribeResponse_V1_Started_:
			if i > 0 {
				return fmt.Errorf("Started is frame %d", i)
			}
		case *mlsapi.SubscribeResponse_V1_Pong:
			if pongs >= len(c.pings) || v.Pong.Nonce != c.pings[pongs] {
				return fmt.Errorf("Pong %d has nonce %d", pongs, v.Pong.Nonce)
			}
			pongs++
		case *mlsapi.SubscribeResponse_V1_Messages_:
			wave := v.Messages.MutateId
			if complete[wave] || len(entriesOf(v.Messages)) == 0 || len(v.Messages.GroupMessages)*len(v.Messages.WelcomeMessages) > 0 {
				return fmt.Errorf("frame %d of wave %d, which is complete (%t), or with nothing or both kinds", i, wave, complete[wave])
			}
			for _, e := range entriesOf(v.Messages) {
				if e.id <= lanes[wave] {
					return fmt.Errorf("message %d in wave %d after %d", e.id, wave, lanes[wave])
				}
				lanes[wave] = e.id
				state := topics[e.topic]
				if wave != 0 {
					var err error
					if state, err = enter(e.topic, wave); err != nil {
						return err
					}
				} else if !state.live {
					return fmt.Errorf("message %d is live, its topic is not", e.id)
				}
				if wave != 0 && state.live {
					return fmt.Errorf("message %d of wave %d, its topic is live", e.id, wave)
				}
				log := logs[e.topic]
				next := slices.IndexFunc(log, func(e entry) bool { return e.id > state.at })
				if next < 0 || log[next] != e {
					return fmt.Errorf("message %d comes after %d, which isn't the next in its topic", e.id, state.at)
				}
				state.at = e.id
			}
		case *mlsapi.SubscribeResponse_V1_TopicsLive_:
			m, ok := c.mutates[completes]
			if !ok {
				return fmt.Errorf("TopicsLive in frame %d without CatchupComplete", i)
			}
			for _, topic := range v.TopicsLive.Topics {
				state, err := enter(string(topic[1:]), completes)
				if err != nil {
					return err
				}
				if log := logs[string(topic[1:])][:m.published[string(topic[1:])]]; len(log) > 0 && log[len(log)-1].id > state.at {
					return fmt.Errorf("wave %d is complete at %d, but there was %d when it was asked for", completes, state.at, log[len(log)-1].id)
				}
				state.live = !m.HistoryOnly
			}
		case *mlsapi.SubscribeResponse_V1_CatchupComplete_:
			id := v.CatchupComplete.MutateId
			m, ok := c.mutates[id]
			if !ok || complete[id] {
				return fmt.Errorf("CatchupComplete %d, which was asked for (%t) or complete before", id, ok)
			}
			complete[id] = true
			for _, topic := range m.Removes {
				if state := topics[string(topic[1:])]; state.wave < id {
					*state = modelTopic{wave: state.wave}
				}
			}
		default:
			return fmt.Errorf("frame %d is %T", i, v)
		}
	}
	if len(complete) != len(c.mutates) || pongs != len(c.pings) {
		return fmt.Errorf("%d of %d Mutates and %d of %d Pings are answered", len(complete), len(c.mutates), pongs, len(c.pings))
	}
	return nil
}

// Whatever is asked and published, in whatever order and while the reader is as
// fast or slow as it likes: everything above a topic's cursor comes once, in the
// order of the topic and of the wave or live, each Mutate has one answer, and in
// the end the topics that were added and not removed are live.
func TestSubscribeModel(t *testing.T) {
	// Not beside others, whose number of checks this would be.
	checks := flag.Lookup("rapid.checks").Value
	before := checks.String()
	defer checks.Set(before)
	checks.Set(scaled("12", "2000"))
	n := start(t, node.Options{})
	publisher := dial(t, n)
	rapid.Check(t, func(t *rapid.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		narrow, err := grpc.NewClient("passthrough:///"+n.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10))
		if err != nil {
			t.Fatal(err)
		}
		defer narrow.Close()
		s, err := mlsapi.NewMlsApiClient(narrow).Subscribe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		c := &conversation{mutates: map[uint64]asked{}, complete: map[uint64]bool{}, last: map[string]string{}}
		var reading sync.WaitGroup
		reading.Go(func() { c.read(s) })
		defer reading.Wait()
		defer cancel()

		type source struct {
			*log
			topic []byte
		}
		sources := []source{{&groupLog, newGroupID()}, {&groupLog, newGroupID()}, {&groupLog, newGroupID()}, {&welcomeLog, newInstallationKey()}}
		aSource := rapid.SampledFrom(sources)
		logs, counts := map[string][]entry{}, map[string]int{}
		// stored reads what has come to a topic since the last time.
		stored := func(src source) []entry {
			log, cursor := logs[string(src.topic)], uint64(0)
			if len(log) > 0 {
				cursor = log[len(log)-1].id
			}
			more, err := src.all(ctx, publisher, src.topic, cursor)
			if err != nil {
				t.Fatal(err)
			}
			logs[string(src.topic)] = append(log, more...)
			return logs[string(src.topic)]
		}
		publish := func(src source, size int, names ...string) {
			var payloads [][]byte
			for _, name := range names {
				payloads = append(payloads, src.payload(src.topic, name+string(make([]byte, size))))
			}
			if err := src.send(ctx, publisher, src.topic, payloads...); err != nil {
				t.Fatal(err)
			}
			counts[string(src.topic)] += len(names)
		}
		ask := func(v1 *mlsapi.SubscribeRequest_V1) {
			if err := s.Send(&mlsapi.SubscribeRequest{Version: &mlsapi.SubscribeRequest_V1_{V1: v1}}); err != nil {
				t.Fatal(err)
			}
		}
		active := map[string]bool{}
		reads := map[string]uint64{} // topics that are read once, by which Mutate
		mutate := func(m *mlsapi.SubscribeRequest_V1_Mutate) {
			m.MutateId = uint64(len(c.mutates) + 1)
			published := map[string]int{}
			for topic, n := range counts {
				published[topic] = n
			}
			c.mu.Lock()
			c.mutates[m.MutateId] = asked{m, published}
			c.mu.Unlock()
			for _, topic := range m.Removes {
				delete(active, string(topic[1:]))
				delete(reads, string(topic[1:]))
			}
			for _, add := range m.Adds {
				if m.HistoryOnly {
					reads[string(add.Topic[1:])] = m.MutateId
				} else {
					active[string(add.Topic[1:])] = true
				}
			}
			ask(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Mutate_{Mutate: m}})
		}
		// idle tells whether a topic may be added by a history_only Mutate, and free
		// whether by any.
		free := func(topic []byte) bool {
			read, ok := reads[string(topic)]
			return !ok || c.is(func() bool { return c.complete[read] })
		}
		idle := func(topic []byte) bool { return free(topic) && !active[string(topic)] }
		number := 0
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				src := aSource.Draw(t, "topic")
				var names []string
				for range rapid.IntRange(1, 5).Draw(t, "messages") {
					number++
					names = append(names, fmt.Sprint(number, " "))
				}
				publish(src, 10, names...)
			},
			"publish many": func(t *rapid.T) {
				src := aSource.Draw(t, "topic")
				var names []string
				for range 60 {
					number++
					names = append(names, fmt.Sprint(number, " "))
				}
				publish(src, 1000, names...)
			},
			"mutate": func(t *rapid.T) {
				m := &mlsapi.SubscribeRequest_V1_Mutate{HistoryOnly: rapid.IntRange(0, 3).Draw(t, "history only") == 0}
				removed := map[string]bool{}
				for range rapid.IntRange(0, 2).Draw(t, "removes") {
					src := aSource.Draw(t, "topic")
					m.Removes = append(m.Removes, src.wire(src.topic))
					removed[string(src.topic)] = true
				}
				for range rapid.IntRange(0, 4).Draw(t, "adds") {
					src := aSource.Draw(t, "topic")
					if !removed[string(src.topic)] && (!free(src.topic) || m.HistoryOnly && !idle(src.topic)) {
						continue
					}
					all, cursor := stored(src), uint64(0)
					if i := rapid.IntRange(-1, max(0, len(all)-1)).Draw(t, "from"); i >= 0 && i < len(all) {
						cursor = all[i].id
					}
					m.Adds = append(m.Adds, src.add(src.topic, cursor))
				}
				mutate(m)
			},
			"ping": func(t *rapid.T) {
				nonce := rapid.Uint64().Draw(t, "nonce")
				c.pings = append(c.pings, nonce)
				ask(&mlsapi.SubscribeRequest_V1{Request: &mlsapi.SubscribeRequest_V1_Ping{Ping: &mlsapi.Ping{Nonce: nonce}}})
			},
			"read slowly": func(t *rapid.T) {
				c.mu.Lock()
				defer c.mu.Unlock()
				for range rapid.IntRange(1, 3).Draw(t, "bursts") {
					src := aSource.Draw(t, "topic")
					var names []string
					for range 100 {
						number++
						names = append(names, fmt.Sprint(number, " "))
					}
					publish(src, 1000, names...)
				}
			},
		})
		wait := func(what string, is func() bool) {
			for !c.is(is) {
				if c.is(func() bool { return c.err != nil }) {
					t.Fatalf("waiting for %s: %v", what, c.err)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		wait("all Mutates", func() bool { return len(c.complete) == len(c.mutates) })
		for _, src := range sources {
			publish(src, 0, theEnd)
		}
		for _, src := range sources {
			if active[string(src.topic)] {
				wait("the end of a topic", func() bool { return c.last[string(src.topic)] == string(src.payload(src.topic, theEnd)) })
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		reading.Wait()
		if !errors.Is(c.err, io.EOF) {
			t.Fatal("the stream ended with", c.err)
		}
		for _, src := range sources {
			stored(src)
		}
		if err := c.judge(logs); err != nil {
			t.Fatal(err)
		}
	})
}
