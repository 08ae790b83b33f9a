package api

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Answers that aren't taken are bounded; those that are taken count no more, and
// small ones never.
func TestLimitAnswers(t *testing.T) {
	l := NewLimiter(time.Now, slog.New(slog.DiscardHandler), Limits{})
	var held []func()
	for range maxUntaken / MaxMessageBytes {
		release, err := l.Hold(context.Background(), MaxMessageBytes)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, release)
	}
	if _, err := l.Hold(context.Background(), MaxMessageBytes); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if _, err := l.Hold(context.Background(), minAnswer-1); err != nil {
		t.Errorf("a small one: %v", err)
	}
	held[0]()
	if _, err := l.Hold(context.Background(), MaxMessageBytes); err != nil {
		t.Errorf("in the place of one that was taken: %v", err)
	}
	if got := l.Refused()[limitAnswers]; got != 1 {
		t.Errorf("%d refusals are counted", got)
	}
}
