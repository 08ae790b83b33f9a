package order

import (
	"errors"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("refused")

// fakeStore keeps records in memory. Its disk syncs when sync says so.
type fakeStore struct {
	mu        sync.Mutex
	number    uint64 // of the newest record
	time      uint64
	seen      map[string]uint64
	committed []*Record
	durable   uint64 // what the disk has
	advanced  uint64 // what readers see
	advances  []uint64
	room      error

	sync   func(*fakeBatch) error // called by Wait; nil: at once
	commit func(*fakeBatch) error // called by Commit
	apply  func(*Record) error    // called by Apply
}

func newFakeStore() *fakeStore { return &fakeStore{seen: map[string]uint64{}} }

func (s *fakeStore) Last() (uint64, uint64) { return s.number, s.time }
func (s *fakeStore) NewBatch() Batch        { return &fakeBatch{store: s} }

func (s *fakeStore) Advance(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advanced = number
	s.advances = append(s.advances, number)
}

func (s *fakeStore) HasRoom() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.room
}

func (s *fakeStore) visible() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advanced
}

type fakeBatch struct {
	store   *fakeStore
	records []*Record
	applied int
}

// Apply refuses payloads that begin with '!' and takes equal payloads once.
func (b *fakeBatch) Apply(r *Record) (Outcome, bool, error) {
	b.applied++
	if b.store.apply != nil {
		if err := b.store.apply(r); err != nil {
			return Outcome{}, false, err
		}
	}
	if len(r.Payload) > 0 && r.Payload[0] == '!' {
		return Outcome{Err: errRefused}, false, nil
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	if earlier, ok := b.store.seen[string(r.Payload)]; ok {
		return Outcome{Number: earlier}, false, nil
	}
	b.store.seen[string(r.Payload)] = r.Number
	b.records = append(b.records, r)
	return Outcome{Number: r.Number}, true, nil
}

func (b *fakeBatch) Commit() error {
	if b.store.commit != nil {
		if err := b.store.commit(b); err != nil {
			return err
		}
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	b.store.committed = append(b.store.committed, b.records...)
	return nil
}

func (b *fakeBatch) Wait() error {
	if b.store.sync != nil {
		if err := b.store.sync(b); err != nil {
			return err
		}
	}
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	if n := len(b.records); n > 0 {
		b.store.durable = b.records[n-1].Number
	}
	return nil
}

func record(payload string) *Record {
	return &Record{Topic: Topic{Kind: GroupMessage, ID: "topic"}, Payload: []byte(payload)}
}
