package scw

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// wrap encodes as ERC-6492 says: (address, bytes, bytes), then the mark.
func wrap(factory address, order, signature []byte) []byte {
	pad := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, (word-len(b)%word)%word)...) }
	b := appendAddress(nil, factory)
	b = appendWord(b, 3*word)
	b = appendWord(b, uint64(4*word+len(pad(order))))
	b = append(appendWord(b, uint64(len(order))), pad(order)...)
	b = append(appendWord(b, uint64(len(signature))), pad(signature)...)
	return append(b, wrapped...)
}

func TestUnwrap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var factory address
		copy(factory[:], rapid.SliceOfN(rapid.Byte(), len(factory), len(factory)).Draw(t, "factory"))
		order := rapid.SliceOf(rapid.Byte()).Draw(t, "order")
		signature := rapid.SliceOf(rapid.Byte()).Draw(t, "signature")
		b := wrap(factory, order, signature)
		f, o, s, ok := unwrap(b[:len(b)-word])
		if !ok || f != factory || !bytes.Equal(o, order) || !bytes.Equal(s, signature) {
			t.Errorf("%x, %x, %x, %v", f, o, s, ok)
		}
	})
}

// Wrappers that point outside themselves, or are no encoding, are refused.
func TestUnwrapRefuses(t *testing.T) {
	good := wrap(address{1}, []byte("order"), []byte("signature"))
	good = good[:len(good)-word]
	changed := func(at int, to ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], to)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":              nil,
		"two words":            good[:2*word],
		"no lengths":           good[:3*word],
		"cut in the signature": good[:6*word+8],
		"a long address":       changed(0, 1),
		"a far order":          changed(2*word-2, 0x01, 0x50),
		"a huge offset":        changed(word, 1),
		"an endless order":     changed(4*word-8, bytes.Repeat([]byte{0xff}, 8)...),
		"a long signature":     changed(6*word-1, 33),
	} {
		if _, _, _, ok := unwrap(b); ok {
			t.Errorf("%s: taken", name)
		}
	}
}

// The program and its arguments, as it expects them.
func TestQuestion(t *testing.T) {
	account, hash := address{0xaa}, [32]byte{0xbb}
	signature := slices.Concat(bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), []byte{27})
	words := func(code []byte) []string {
		arguments, ok := bytes.CutPrefix(code, validator)
		if !ok {
			t.Fatalf("no program: %x", code)
		}
		var list []string
		for w := range slices.Chunk(arguments, word) {
			list = append(list, hex.EncodeToString(w))
		}
		return list
	}
	w := func(n int) string { return hex.EncodeToString(appendWord(nil, uint64(n))) }
	text := func(b ...byte) string { return hex.EncodeToString(append(b, make([]byte, word-len(b))...)) }
	addr := func(a address) string { return hex.EncodeToString(appendAddress(nil, a)) }
	ones, twos := text(signature[:32]...), text(signature[32:64]...)
	// selector, hash, offset 64, length 65, signature
	asked := hex.EncodeToString(append([]byte(selector), hash[:]...)) + w(64) + w(65) + ones + twos + text(27)

	plain := words(question(account, hash, signature))
	head := []string{addr(account), addr(address{}), w(0), w(4 + 6*word), w(0), text(0xbb), w(27), ones, twos}
	if got := plain[:len(head)]; !slices.Equal(got, head) {
		t.Errorf("plain:\n%q, want\n%q", got, head)
	}
	if got := strings.Join(plain[len(head):], ""); got != asked {
		t.Errorf("plain asks\n%s, want\n%s", got, asked)
	}
	factory, order := address{0xcc}, []byte("make the wallet")
	made := words(question(account, hash, wrap(factory, order, signature)))
	head[1], head[2], head[4] = addr(factory), w(1), w(len(order))
	if got := made[:len(head)]; !slices.Equal(got, head) {
		t.Errorf("wrapped:\n%q, want\n%q", got, head)
	}
	if got, want := strings.Join(made[len(head):], ""), asked+hex.EncodeToString(order); got != want {
		t.Errorf("wrapped asks\n%s, want\n%s", got, want)
	}
}

// FuzzQuestion: no signature gives more code than chains take.
func FuzzQuestion(f *testing.F) {
	f.Add(testSignature)
	f.Add(wrap(address{1}, []byte("order"), testSignature))
	f.Add(slices.Concat(make([]byte, 96), wrapped))
	f.Fuzz(func(t *testing.T, signature []byte) {
		code := question(address{1}, [32]byte{2}, signature)
		if len(code) > maxInitcode || code != nil && len(code) > 2*len(signature)+len(validator)+20*word {
			t.Errorf("%d bytes of code for %d", len(code), len(signature))
		}
	})
}

// FuzzParse: an endpoint may answer anything.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":"0x01"}`))
	f.Add([]byte(`{"id":1,"error":{"code":3,"message":"execution reverted","data":"0x"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		e := &endpoint{chain: testChain}
		result, reverted, err := e.parse(answer, 1)
		if result != "" && (reverted || err != nil) || reverted && err != nil {
			t.Errorf("%q, %v, %v", result, reverted, err)
		}
	})
}

func BenchmarkQuestion(b *testing.B) {
	b.ReportAllocs()
	signature := wrap(address{1}, make([]byte, 1000), testSignature)
	for b.Loop() {
		question(address{1}, [32]byte{2}, signature)
	}
}
