package protocol

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestMessageID(t *testing.T) {
	vectors := append(groupsFile().MessageID, groupsFile().TranscriptMessageID...)
	for _, v := range vectors {
		e := Envelope{v.Content, v.Key}
		if id := e.MessageID(v.GroupID); !bytes.Equal(id[:], v.ID) {
			t.Errorf("id %x, want %x", id, v.ID)
		}
		if v.Envelope == nil {
			continue
		}
		got, err := ParseEnvelope(v.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Content, e.Content) || got.IdempotencyKey != e.IdempotencyKey {
			t.Errorf("envelope %x %q", got.Content, got.IdempotencyKey)
		}
		if b, err := e.Marshal(); err != nil || !bytes.Equal(b, v.Envelope) {
			t.Errorf("encoded %x, %v, want %x", b, err, v.Envelope)
		}
	}
}

func TestNewEnvelope(t *testing.T) {
	e := NewEnvelope([]byte("content"), time.Unix(1795368298, 672712083))
	if e.IdempotencyKey != "1795368298672712083" || string(e.Content) != "content" {
		t.Errorf("got %+v", e)
	}
}

func TestParseEnvelopeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, ErrEnvelope},
		{"no protobuf", []byte{0xff}, ErrEnvelope},
		{"key that is no UTF-8", []byte{0x0a, 3, 0x12, 1, 0xff}, ErrEnvelope},
		{"second version", []byte{0x12, 3, 0x0a, 1, 'k'}, ErrNoContent},
	} {
		if _, err := ParseEnvelope(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := (Envelope{IdempotencyKey: "\xff"}).Marshal(); err == nil {
		t.Error("a key that is no UTF-8 was encoded")
	}
}

func TestWelcomeTime(t *testing.T) {
	for ns, want := range map[uint64]string{
		1795374538377700000: "2026-11-22 19:08:58.377700 UTC",
		1795368298670152590: "2026-11-22 17:24:58.670152590 UTC",
		1795368298670000000: "2026-11-22 17:24:58.670 UTC",
		1795368298000000000: "2026-11-22 17:24:58 UTC",
		1795368298000000001: "2026-11-22 17:24:58.000000001 UTC",
		1795368298001000000: "2026-11-22 17:24:58.001 UTC",
		0:                   "1970-01-01 00:00:00 UTC",
	} {
		if got := welcomeTime(ns); got != want {
			t.Errorf("%d: %s, want %s", ns, got, want)
		}
	}
}

func TestLeaveRequest(t *testing.T) {
	if !IsLeaveRequest(LeaveRequest()) {
		t.Error("ours is not recognised")
	}
	for _, content := range [][]byte{nil, {0xff}, groupUpdated(nil)} {
		if IsLeaveRequest(content) {
			t.Errorf("%x is taken for a leave request", content)
		}
	}
}

func TestPadding(t *testing.T) {
	for _, c := range []struct{ n, class int }{
		{0, 256}, {1, 256}, {255, 256}, {256, 256}, {257, 512}, {513, 1024},
		{32768, 32768}, {32769, 65536}, {65536, 65536}, {65537, 131072}, {131072, 131072}, {131073, 196608},
	} {
		if got := c.n + Padding(c.n); got != c.class {
			t.Errorf("%d bytes become %d, want %d", c.n, got, c.class)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 1<<21).Draw(t, "n")
		m := rapid.IntRange(0, n).Draw(t, "m")
		if p := Padding(n); p < 0 || n > 128 && n+p >= 2*n+1<<10 && p > 64<<10 {
			t.Fatalf("padding of %d is %d", n, p)
		}
		if m+Padding(m) > n+Padding(n) {
			t.Fatalf("%d becomes longer than %d", m, n)
		}
	})
}
