package main

import (
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	for _, c := range []struct {
		values []int64
		p      float64
		want   int64
	}{
		{nil, 0.5, 0},
		{[]int64{7}, 0.99, 7},
		{[]int64{3, 1, 2}, 0.5, 2},
		{[]int64{4, 3, 1, 2}, 0.5, 2},
		{[]int64{4, 3, 1, 2}, 1, 4},
		{[]int64{4, 3, 1, 2}, 0.01, 1},
		{[]int64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0.9, 9},
		{[]int64{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}, 0.91, 10},
	} {
		if got := percentile(c.values, c.p); got != c.want {
			t.Errorf("percentile %v of %v is %d, not %d", c.p, c.values, got, c.want)
		}
	}
	if got := median([]time.Duration{3, 1, 2}); got != 2 {
		t.Errorf("the median is %d", got)
	}
}

// A machine that becomes slower changes both figures but not their ratio.
func TestPairs(t *testing.T) {
	var p pairs
	for _, speed := range []float64{1, 0.5, 0.25} {
		p.add(60*speed, 100*speed)
	}
	p.add(1, 100) // one disturbed turn
	p.add(99, 100)
	if got := p.ratio(); got != 0.6 {
		t.Errorf("the ratio is %v", got)
	}
	if ours, bare := p.medians(); ours != 30 || bare != 100 {
		t.Errorf("the medians are %v and %v", ours, bare)
	}
}
