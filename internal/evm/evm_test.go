package evm

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestAssemble(t *testing.T) {
	for _, tc := range []struct{ name, source, want string }{
		{"nothing", "; only a comment", ""},
		{"instructions", "GAS POP\nSTOP", "5a5000"},
		{"numbers", "0 1 255 0x100 0x00ff", "6000600160ff61010060ff"},
		{"256 bits", "0x" + strings.Repeat("f1", 32), "7f" + strings.Repeat("f1", 32)},
		{"jump back", "here: @here JUMP", "5b61000056"},
		{"jump ahead", "1 @there JUMPI 0 there:", "6001610008576000" + "5b"},
		{"end", "@end CODESIZE SUB ; data follows", "6100053803"},
		{"both in a comment", "STOP ; ADD @nowhere x:", "00"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, err := Assemble(tc.source)
			if got := hex.EncodeToString(code); err != nil || got != tc.want {
				t.Errorf("got %s, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestAssembleRefuses(t *testing.T) {
	for _, source := range []string{
		"add", "PUSH1", "-1", "0x1" + strings.Repeat("00", 32), "@nowhere JUMP", "a: a:", "end: STOP", ":", "@", "0xzz",
		strings.Repeat("STOP ", 1<<16),
	} {
		if code, err := Assemble(source); err == nil {
			t.Errorf("%.20q: got %d bytes", source, len(code))
		}
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add("here: 1 @here JUMPI @end 0xffff CODESIZE ; comment")
	f.Fuzz(func(t *testing.T, source string) {
		code, err := Assemble(source)
		// No word becomes more than 33 bytes, and every word is a byte at least.
		if err == nil && len(code) > 33*len(source) {
			t.Errorf("%d bytes from %d", len(code), len(source))
		}
	})
}
