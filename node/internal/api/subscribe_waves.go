package api

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/go-xmtp/go-xmtp/node/internal/index"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// Limits of one Subscribe stream.
const (
	maxAdds             = 100_000 // in one Mutate
	maxSubscribedTopics = 1_000_000
)

// The first byte of a topic.
const (
	kindGroup   = 0
	kindWelcome = 1
)

func parseTopic(b []byte) (order.Topic, error) {
	switch {
	case len(b) < 2:
		return order.Topic{}, invalid("a topic of %d bytes: it is a kind and an identifier", len(b))
	case len(b) > 1+maxTopicLength:
		return order.Topic{}, invalid("a topic of %d bytes: at most %d are possible", len(b), 1+maxTopicLength)
	case b[0] == kindGroup:
		return order.Topic{Kind: order.GroupMessage, ID: string(b[1:])}, nil
	case b[0] == kindWelcome:
		return order.Topic{Kind: order.Welcome, ID: string(b[1:])}, nil
	}
	return order.Topic{}, invalid("topics of kind %d are not served", b[0])
}

func appendTopic(b []byte, topic order.Topic) []byte {
	kind := byte(kindGroup)
	if topic.Kind == order.Welcome {
		kind = kindWelcome
	}
	return append(append(b, kind), topic.ID...)
}

// wave is the replay that one Mutate asked for.
type wave struct {
	id          uint64
	historyOnly bool
	// topics are those that were added; it has lost those whose state names
	// another wave, or none. owned is how many are left.
	topics []order.Topic
	owned  int

	ceiling uint64       // what merge reads to, before the last part
	merge   *index.Merge // what is still to be delivered
	late    map[order.Topic]struct{}
	closing bool // at the last part, which delivers the late topics
}

// mutate changes the topics, or nothing if it returns an error.
func (u *subscriber) mutate(ctx context.Context, m *mlsapi.SubscribeRequest_V1_Mutate) error {
	adds, removes, err := u.check(m)
	if err != nil {
		return err
	}
	if err := u.Limiter.read(ctx, len(adds)); err != nil {
		return err
	}
	for _, topic := range removes {
		u.leaveWave(topic)
		delete(u.topics, topic)
	}
	u.live.Remove(removes...)

	w := &wave{id: m.MutateId, historyOnly: m.HistoryOnly}
	started := adds[:0]
	for _, add := range adds {
		if state, ok := u.topics[add.Topic]; ok {
			if add.After >= state.floor {
				continue
			}
			u.leaveWave(add.Topic)
		}
		u.topics[add.Topic] = subscribed{floor: add.After, wave: w}
		started = append(started, add)
		w.topics = append(w.topics, add.Topic)
	}
	if len(started) == 0 {
		u.sendComplete(w.id)
		return nil
	}
	w.owned = len(started)
	if !w.historyOnly {
		u.live.Add(w.topics...)
	}
	w.ceiling = u.Index.Durable()
	w.merge = u.Index.Merge(started, w.ceiling)
	u.waves[w.id] = w
	u.turns = append(u.turns, w)
	return nil
}

// check returns what a Mutate adds, with the lowest cursor of each topic, and
// what it removes.
func (u *subscriber) check(m *mlsapi.SubscribeRequest_V1_Mutate) (adds []index.Cursor, removes []order.Topic, err error) {
	if len(m.Adds) > 0 && m.MutateId == 0 {
		return nil, nil, invalid("a Mutate that adds topics must have a mutate_id other than 0")
	}
	if _, ok := u.waves[m.MutateId]; ok {
		return nil, nil, invalid("mutate_id %d is in flight", m.MutateId)
	}
	if len(m.Adds) > maxAdds {
		return nil, nil, status.Errorf(codes.ResourceExhausted, "%d topics added by one Mutate: at most %d are taken", len(m.Adds), maxAdds)
	}
	removed := make(map[order.Topic]struct{}, len(m.Removes))
	for _, b := range m.Removes {
		topic, err := parseTopic(b)
		if err != nil {
			return nil, nil, err
		}
		removed[topic] = struct{}{}
		removes = append(removes, topic)
	}
	places := make(map[order.Topic]int, len(m.Adds))
	for _, add := range m.Adds {
		topic, err := parseTopic(add.GetTopic())
		if err != nil {
			return nil, nil, err
		}
		if i, ok := places[topic]; ok {
			adds[i].After = min(adds[i].After, add.GetIdCursor())
			continue
		}
		places[topic] = len(adds)
		adds = append(adds, index.Cursor{Topic: topic, After: add.GetIdCursor()})
		state, active := u.topics[topic]
		if _, ok := removed[topic]; !active || ok {
			continue
		}
		if m.HistoryOnly {
			return nil, nil, invalid("a history_only Mutate adds a topic that is subscribed")
		}
		if state.wave != nil && state.wave.historyOnly {
			return nil, nil, invalid("a Mutate adds a topic whose history_only replay is in flight")
		}
	}
	if len(u.topics)+len(adds) > maxSubscribedTopics {
		return nil, nil, status.Errorf(codes.ResourceExhausted, "more than %d topics on one stream", maxSubscribedTopics)
	}
	return adds, removes, nil
}

// leaveWave takes a topic out of its wave, which is complete without the last one.
func (u *subscriber) leaveWave(topic order.Topic) {
	w := u.topics[topic].wave
	if w == nil {
		return
	}
	if w.owned--; w.owned == 0 {
		u.endWave(w)
		u.sendComplete(w.id)
	}
}

func (u *subscriber) endWave(w *wave) {
	delete(u.waves, w.id)
	u.turns = slices.DeleteFunc(u.turns, func(other *wave) bool { return other == w })
	if w.closing {
		u.closing--
	}
}

func (u *subscriber) sendComplete(id uint64) {
	u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_CatchupComplete_{
		CatchupComplete: &mlsapi.SubscribeResponse_V1_CatchupComplete{MutateId: id},
	}})
}

// produce makes the next frames of messages ready and tells whether there may
// be more to do.
func (u *subscriber) produce() (more bool, err error) {
	u.waveNext = !u.waveNext
	for range 2 {
		if u.waveNext {
			more, err = u.produceHistory()
		} else {
			more, err = u.produceLive()
		}
		if more || err != nil {
			break
		}
		u.waveNext = !u.waveNext
	}
	return more, err
}

// produceLive delivers news, in the order of their numbers.
func (u *subscriber) produceLive() (bool, error) {
	live := func(topic order.Topic) bool {
		state, ok := u.topics[topic]
		return ok && state.wave == nil
	}
	if u.behind != nil {
		records, done, err := u.behind.Next(live, frameMessages, frameBytes)
		if err != nil {
			return false, u.broken(err)
		}
		u.open.replayed(records)
		if done {
			u.behind = nil
		}
		return true, u.deliver(records, nil)
	}
	if u.closing > 0 {
		return false, nil
	}
	news, ok := u.live.Take()
	if !ok {
		return false, nil
	}
	u.through = news.Through
	for _, r := range news.Records {
		u.noteLate(r.Topic, r.Number)
	}
	if err := u.deliver(news.Records, nil); err != nil {
		return false, err
	}
	var behind []index.Cursor
	for _, topic := range news.Lagging {
		u.noteLate(topic, news.Through)
		if live(topic) {
			behind = append(behind, index.Cursor{Topic: topic, After: u.topics[topic].floor})
		}
	}
	if len(behind) > 0 {
		u.behind = u.Index.Merge(behind, news.Through)
	}
	return true, nil
}

// noteLate remembers that a gated topic has something above its wave's ceiling.
func (u *subscriber) noteLate(topic order.Topic, number uint64) {
	w := u.topics[topic].wave
	if w == nil || w.historyOnly || number <= w.ceiling {
		return
	}
	if w.late == nil {
		w.late = map[order.Topic]struct{}{}
	}
	w.late[topic] = struct{}{}
}

// produceHistory lets the wave whose turn it is deliver.
func (u *subscriber) produceHistory() (bool, error) {
	if len(u.turns) == 0 {
		return false, nil
	}
	w := u.turns[0]
	u.turns = append(u.turns[1:], w)
	owned := func(topic order.Topic) bool { return u.topics[topic].wave == w }
	records, done, err := w.merge.Next(owned, frameMessages, frameBytes)
	if err != nil {
		return false, u.broken(err)
	}
	u.open.replayed(records)
	if err := u.deliver(records, w); err != nil {
		return false, err
	}
	switch {
	case !done:
	case len(w.late) > 0:
		late := make([]index.Cursor, 0, len(w.late))
		for topic := range maps.Keys(w.late) {
			if owned(topic) {
				late = append(late, index.Cursor{Topic: topic, After: u.topics[topic].floor})
			}
		}
		w.merge, w.late, w.closing = u.Index.Merge(late, u.through), nil, true
		u.closing++
	default:
		u.complete(w)
	}
	return true, nil
}

// complete ends a wave: its topics are live now, or gone.
func (u *subscriber) complete(w *wave) {
	live := &mlsapi.SubscribeResponse_V1_TopicsLive{Topics: make([][]byte, 0, w.owned)}
	for _, topic := range w.topics {
		state := u.topics[topic]
		if state.wave != w {
			continue
		}
		live.Topics = append(live.Topics, appendTopic(make([]byte, 0, 1+len(topic.ID)), topic))
		if state.wave = nil; w.historyOnly {
			delete(u.topics, topic)
		} else {
			u.topics[topic] = state
		}
	}
	u.endWave(w)
	u.send(&mlsapi.SubscribeResponse_V1{Response: &mlsapi.SubscribeResponse_V1_TopicsLive_{TopicsLive: live}})
	u.sendComplete(w.id)
}

// deliver sends what belongs to the wave, or is live if that is nil, and was not
// delivered before.
func (u *subscriber) deliver(records []*order.Record, w *wave) error {
	id := uint64(0)
	if w != nil {
		id = w.id
	}
	due := make([]*order.Record, 0, len(records))
	for _, r := range records {
		state, ok := u.topics[r.Topic]
		if !ok || state.wave != w || r.Number <= state.floor {
			continue
		}
		state.floor = r.Number
		u.topics[r.Topic] = state
		due = append(due, r)
	}
	if err := u.sendMessages(due, id); err != nil {
		return u.broken(err)
	}
	return nil
}

// broken ends the stream when the store can't be read.
func (u *subscriber) broken(err error) error {
	u.Logger.Error("reading records", "error", err)
	return status.Error(codes.Unavailable, "catch-up failed: the node can't read its store")
}
