package protocol

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

const (
	hmacKeySize = 42
	hmacSalt    = "libXMTP HKDF salt!"

	// hmacPeriod is for how long a key is used, in seconds: 30 days.
	hmacPeriod = 30 * 24 * 60 * 60
)

// HMACRoot is the secret of an inbox, shared by its installations, from which come
// the keys that mark what the inbox sends. A push server that knows the keys of a
// while can leave out a user's own messages. It prints redacted.
type HMACRoot struct{ key [hmacKeySize]byte }

// NewHMACRoot makes a random root.
func NewHMACRoot() *HMACRoot {
	r := new(HMACRoot)
	rand.Read(r.key[:])
	return r
}

var errHMACRoot = errors.New("protocol: HMAC root is not of 42 bytes")

// ParseHMACRoot takes the 42 bytes of a root.
func ParseHMACRoot(key []byte) (*HMACRoot, error) {
	if len(key) != hmacKeySize {
		return nil, errHMACRoot
	}
	return &HMACRoot{[hmacKeySize]byte(key)}, nil
}

// Bytes returns the secret itself, 42 bytes, to be stored or shared.
func (r *HMACRoot) Bytes() []byte { return append([]byte(nil), r.key[:]...) }

// Format implements [fmt.Formatter] without showing the secret.
func (r *HMACRoot) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[HMAC root]") }

// LogValue implements [slog.LogValuer] without showing the secret.
func (r *HMACRoot) LogValue() slog.Value { return slog.StringValue("[HMAC root]") }

// HMACKey is the key of one group and one period, to be given to push servers. It
// prints without the key.
type HMACKey struct {
	// Epoch counts periods of 30 days since 1970.
	Epoch int64
	// Key has 42 bytes.
	Key []byte
}

// Format implements [fmt.Formatter] without showing the key.
func (k HMACKey) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "[HMAC key of epoch %d]", k.Epoch)
}

// LogValue implements [slog.LogValuer] without showing the key.
func (k HMACKey) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }

// HMACEpoch returns the period that t is in.
func HMACEpoch(t time.Time) int64 { return t.Unix() / hmacPeriod }

// Key derives the key of a group for a period.
func (r *HMACRoot) Key(groupID []byte, epoch int64) HMACKey {
	secret := append(r.Bytes(), groupID...)
	defer clear(secret)
	info := binary.LittleEndian.AppendUint64(append([]byte(nil), groupID...), uint64(epoch))
	key, err := hkdf.Key(sha256.New, secret, []byte(hmacSalt), string(info), hmacKeySize)
	if err != nil {
		panic("protocol: " + err.Error()) // the length is one of HKDF's
	}
	return HMACKey{epoch, key}
}

// Keys derives the keys of a group for the periods before, at and after now, which
// is what push servers ask for.
func (r *HMACRoot) Keys(groupID []byte, now time.Time) [3]HMACKey {
	epoch := HMACEpoch(now)
	return [3]HMACKey{r.Key(groupID, epoch-1), r.Key(groupID, epoch), r.Key(groupID, epoch+1)}
}

// SenderHMAC marks what is sent to a group: data is the whole MLSMessage, a commit's
// as well. The result has 32 bytes.
func (k HMACKey) SenderHMAC(data []byte) []byte {
	h := hmac.New(sha256.New, k.Key)
	h.Write(data)
	return h.Sum(nil)
}
