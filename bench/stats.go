package main

import (
	"slices"
	"time"
)

// percentile is the smallest value that is at least as big as a share p of all,
// 0 < p <= 1; the zero value if there are none. It sorts them.
func percentile[T int64 | float64 | time.Duration](values []T, p float64) (value T) {
	if len(values) == 0 {
		return value
	}
	slices.Sort(values)
	rank := int(p * float64(len(values)))
	if float64(rank) < p*float64(len(values)) {
		rank++
	}
	return values[min(max(rank, 1), len(values))-1]
}

// median is the middle one, the lower of two.
func median[T int64 | float64 | time.Duration](values []T) T { return percentile(values, 0.5) }

// pairs are what was measured of two things in turns, so that what else the machine
// does, which changes slowly, falls on both.
type pairs struct{ ours, bare []float64 }

func (p *pairs) add(ours, bare float64) {
	p.ours = append(p.ours, ours)
	p.bare = append(p.bare, bare)
}

// ratio is the median of those of the turns.
func (p *pairs) ratio() float64 {
	ratios := make([]float64, len(p.ours))
	for i := range ratios {
		ratios[i] = p.ours[i] / p.bare[i]
	}
	return median(ratios)
}

// medians are those of both.
func (p *pairs) medians() (ours, bare float64) {
	return median(slices.Clone(p.ours)), median(slices.Clone(p.bare))
}
