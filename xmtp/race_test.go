//go:build race

package xmtp

const underRace = true
