package scw

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/hex"

	"github.com/go-xmtp/go-xmtp/internal/evm"
)

// validator.evm says what the program does, and is assembled when the program
// that uses this package starts.
//
//go:embed validator.evm
var validatorSource string

var validator = evm.MustAssemble(validatorSource)

const (
	word = 32
	// maxInitcode is the longest creation code that chains run (EIP-3860).
	maxInitcode = 49152
	// selector of isValidSignature(bytes32,bytes), and what it answers if it is.
	selector = "\x16\x26\xba\x7e"
)

// wrapped is the end of a signature that names the factory of its wallet (ERC-6492).
var wrapped = bytes.Repeat([]byte{0x64, 0x92}, word/2)

type address [20]byte

// question is the code of the creation that asks a chain about a signature. It
// is nil if the answer is no, whatever the chain says: the signature is shorter
// than the reference reads, longer than chains take, or wrapped badly.
func question(account address, hash [32]byte, signature []byte) []byte {
	if len(signature) < word || len(signature) > maxInitcode {
		return nil
	}
	var factory address
	var order []byte
	isWrapped := bytes.HasSuffix(signature, wrapped)
	if isWrapped {
		var ok bool
		if factory, order, signature, ok = unwrap(signature[:len(signature)-word]); !ok {
			return nil
		}
	}
	ask := append([]byte(selector), hash[:]...)
	ask = appendWord(ask, 2*word) // where the signature is
	ask = appendWord(ask, uint64(len(signature)))
	ask = append(ask, signature...)
	ask = append(ask, make([]byte, (word-len(signature)%word)%word)...)

	code := bytes.Clone(validator)
	code = appendAddress(code, account)
	code = appendAddress(code, factory)
	if isWrapped {
		code = appendWord(code, 1)
	} else {
		code = appendWord(code, 0)
	}
	code = appendWord(code, uint64(len(ask)))
	code = appendWord(code, uint64(len(order)))
	code = append(code, recoverable(hash, signature)...)
	code = append(code, ask...)
	code = append(code, order...)
	if len(code) > maxInitcode {
		return nil
	}
	return code
}

// unwrap decodes what ERC-6492 puts before its mark: the ABI's encoding of
// (address factory, bytes order, bytes signature).
func unwrap(b []byte) (factory address, order, signature []byte, ok bool) {
	if len(b) < 3*word || !isZero(b[:word-len(factory)]) {
		return factory, nil, nil, false
	}
	copy(factory[:], b[word-len(factory):])
	order, okOrder := dynamic(b, 1)
	signature, okSignature := dynamic(b, 2)
	return factory, order, signature, okOrder && okSignature
}

// dynamic reads the bytes that the ABI's argument n points to.
func dynamic(b []byte, n int) ([]byte, bool) {
	offset, ok := number(b[n*word:])
	if !ok || offset > uint64(len(b)) {
		return nil, false
	}
	rest := b[offset:]
	length, ok := number(rest)
	if !ok || length > uint64(len(rest)-word) {
		return nil, false
	}
	return rest[word : word+length], true
}

// number reads a word that is an offset or a length.
func number(b []byte) (uint64, bool) {
	if len(b) < word || !isZero(b[:word-8]) {
		return 0, false
	}
	return binary.BigEndian.Uint64(b[word-8:]), true
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// recoverable is what the precompiled contract takes: hash, v, r, s. It recovers
// nothing from a v of 0.
func recoverable(hash [32]byte, signature []byte) []byte {
	b := make([]byte, 0, 4*word)
	b = append(b, hash[:]...)
	if len(signature) != 2*word+1 {
		return append(b, make([]byte, 3*word)...)
	}
	b = appendWord(b, uint64(signature[2*word]))
	return append(b, signature[:2*word]...)
}

func appendWord(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, make([]byte, word-8)...), n)
}

func appendAddress(b []byte, a address) []byte {
	return append(append(b, make([]byte, word-len(a))...), a[:]...)
}

// parseAddress reads 40 hex digits, with or without "0x".
func parseAddress(s string) (a address, ok bool) {
	if len(s) == 2+2*len(a) && s[:2] == "0x" {
		s = s[2:]
	}
	n, err := hex.Decode(a[:], []byte(s)[:min(len(s), 2*len(a))])
	return a, err == nil && n == len(a) && len(s) == 2*len(a)
}
