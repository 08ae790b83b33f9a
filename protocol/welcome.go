package protocol

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/internal/hpke"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

// A Welcome travels wrapped once more, to a key of the joining installation, so
// that the node can't see which key package and cipher suite it is for. Several
// installations can share one: it is then encrypted under a fresh key, and each of
// them gets a wrapped pointer to it (XIP-74).

// Errors of received welcomes. A welcome with any of them will never open.
var (
	// ErrWelcome is a welcome that is malformed, or wrapped in a way that the
	// sender could not mean.
	ErrWelcome = errors.New("malformed welcome")

	// ErrWelcomeKey is a welcome that doesn't open: it is for another key, or
	// was altered.
	ErrWelcomeKey = errors.New("welcome doesn't open")
)

// welcomeInfo is the HPKE info of the wrapper: the label "MLS_WELCOME" and an empty
// context, as in RFC 9420 §5.1.3.
var welcomeInfo = append(appendOpaque(nil, []byte("MLS 1.0 MLS_WELCOME")), 0)

const (
	curve25519 = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_CURVE25519
	xwing      = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6
	symmetric  = mlscontents.WelcomeWrapperAlgorithm_WELCOME_WRAPPER_ALGORITHM_SYMMETRIC_KEY

	pointerXWing = mlscontents.WelcomePointerWrapperAlgorithm_WELCOME_POINTER_WRAPPER_ALGORITHM_XWING_MLKEM_768_DRAFT_6

	pointeeAEAD = mlscontents.WelcomePointeeEncryptionAeadType_WELCOME_POINTEE_ENCRYPTION_AEAD_TYPE_CHACHA20_POLY1305
)

// xwingKEM is the number under which X-Wing is registered on this network. The
// number of the RFC series is another, and goes into every key.
const xwingKEM = 0x004d

// wrapper is one way to wrap, with its digested info.
type wrapper struct {
	suite *hpke.Suite
	info  hpke.Info
}

func newWrapper(kem hpke.KEM) *wrapper {
	s := hpke.New(kem, hpke.HKDFSHA256, hpke.ChaCha20Poly1305)
	return &wrapper{s, s.Info(welcomeInfo)}
}

// The wrappers are made on first use, because that takes hashing.
var (
	curve25519Wrapper = sync.OnceValue(func() *wrapper { return newWrapper(hpke.X25519()) })
	xwingWrapper      = sync.OnceValue(func() *wrapper { return newWrapper(hpke.XWing(xwingKEM)) })
)

// WrapWelcome wraps a Welcome, an encoded MLSMessage, for one installation that the
// commit with the id commitID added. The error is [hpke.ErrInvalidKey] if the key of
// the wrapper is none.
func WrapWelcome(welcome []byte, commitID uint64, installation identity.Identifier, to identity.WelcomeWrapper) (*mlsapi.WelcomeMessageInput, error) {
	metadata, err := marshal(&mlsapi.WelcomeMetadata{MessageCursor: commitID})
	if err != nil {
		return nil, fmt.Errorf("protocol: wrap welcome: %w", err)
	}
	w := curve25519Wrapper()
	if to.Algorithm == xwing {
		w = xwingWrapper()
	}
	enc, context, err := w.suite.NewSender(to.PublicKey, w.info)
	if err != nil {
		return nil, fmt.Errorf("protocol: wrap welcome: %w", err)
	}
	defer context.Wipe()
	// The order matters: both are sealed under one key, in sequence.
	data := appendOpaque(appendOpaque(nil, enc), context.Seal(nil, nil, welcome))
	return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
		InstallationKey:  installation.Bytes(),
		Data:             data,
		HpkePublicKey:    to.PublicKey,
		WrapperAlgorithm: to.Algorithm,
		WelcomeMetadata:  context.Seal(nil, nil, metadata),
	}}}, nil
}

// Welcome is what was wrapped.
type Welcome struct {
	// Message is an MLSMessage with a Welcome in it.
	Message []byte

	// CommitID is the node's id of the commit that let us in: what is to be read
	// comes after it. 0 if the sender didn't tell.
	CommitID uint64
}

// WelcomeKey returns the public key that a received welcome or pointer is wrapped
// to: the init key or the wrapper key of one of our key packages.
func WelcomeKey(m *mlsapi.WelcomeMessage) []byte {
	if p := m.GetWelcomePointer(); p != nil {
		return p.GetHpkePublicKey()
	}
	return m.GetV1().GetHpkePublicKey()
}

// open opens what was sealed for key, first data and then metadata, if there is
// any.
func (w *wrapper) open(key hpke.KeyPair, data, metadata []byte) (first, second []byte, err error) {
	enc, rest, err := readOpaque(data)
	if err != nil {
		return nil, nil, fmt.Errorf("protocol: %w: %w", ErrWelcome, err)
	}
	ciphertext, rest, err := readOpaque(rest)
	if err != nil || len(rest) != 0 {
		return nil, nil, fmt.Errorf("protocol: %w: not one ciphertext", ErrWelcome)
	}
	context, err := w.suite.NewRecipient(key, enc, w.info)
	if err != nil {
		return nil, nil, fmt.Errorf("protocol: %w: %w", ErrWelcomeKey, err)
	}
	defer context.Wipe()
	if first, err = context.Open(nil, nil, ciphertext); err != nil {
		return nil, nil, fmt.Errorf("protocol: %w: %w", ErrWelcomeKey, err)
	}
	if len(metadata) > 0 {
		if second, err = context.Open(nil, nil, metadata); err != nil {
			return nil, nil, fmt.Errorf("protocol: %w: metadata: %w", ErrWelcomeKey, err)
		}
	}
	return first, second, nil
}

// WelcomePointer leads to a welcome that several installations share. It holds the
// key to it and prints redacted.
type WelcomePointer struct {
	// Destination is the topic of the shared welcome, in place of an installation
	// key. It is the first message there.
	Destination []byte

	key, dataNonce, metadataNonce []byte
}

// Format implements [fmt.Formatter] without showing the key.
func (p *WelcomePointer) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, fmt.Sprintf("[welcome pointer to %x]", p.Destination))
}

// Marshal encodes the pointer with its key, for those who have to wait for what it
// leads to.
func (p *WelcomePointer) Marshal() []byte {
	b, err := marshal(&mlscontents.WelcomePointer{Version: &mlscontents.WelcomePointer_WelcomeV1Pointer_{
		WelcomeV1Pointer: &mlscontents.WelcomePointer_WelcomeV1Pointer{
			Destination: p.Destination, AeadType: pointeeAEAD, EncryptionKey: p.key,
			DataNonce: p.dataNonce, WelcomeMetadataNonce: p.metadataNonce,
		},
	}})
	if err != nil {
		panic("protocol: " + err.Error()) // no strings in it
	}
	return b
}

// ParseWelcomePointer decodes a pointer after it was unwrapped. The error is
// [ErrWelcome].
func ParseWelcomePointer(b []byte) (*WelcomePointer, error) {
	var m mlscontents.WelcomePointer
	if err := unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("protocol: %w: pointer: %w", ErrWelcome, err)
	}
	v1 := m.GetWelcomeV1Pointer()
	switch {
	case v1 == nil || v1.GetAeadType() != pointeeAEAD:
		return nil, fmt.Errorf("protocol: %w: pointer of unknown version or cipher", ErrWelcome)
	case len(v1.GetDestination()) != 32 || len(v1.GetEncryptionKey()) != chacha20poly1305.KeySize ||
		len(v1.GetDataNonce()) != chacha20poly1305.NonceSize || len(v1.GetWelcomeMetadataNonce()) != chacha20poly1305.NonceSize:
		return nil, fmt.Errorf("protocol: %w: pointer with fields of wrong length", ErrWelcome)
	}
	return &WelcomePointer{v1.GetDestination(), v1.GetEncryptionKey(), v1.GetDataNonce(), v1.GetWelcomeMetadataNonce()}, nil
}

// Open decrypts the message that the pointer leads to. The errors are [ErrWelcome]
// and [ErrWelcomeKey].
func (p *WelcomePointer) Open(m *mlsapi.WelcomeMessage) (*Welcome, error) {
	v1 := m.GetV1()
	if v1 == nil {
		return nil, fmt.Errorf("protocol: %w: a pointer leads to another", ErrWelcome)
	}
	aead, err := chacha20poly1305.New(p.key)
	if err != nil {
		return nil, fmt.Errorf("protocol: %w: %w", ErrWelcome, err)
	}
	message, err := aead.Open(nil, p.dataNonce, v1.GetData(), nil)
	if err != nil {
		return nil, fmt.Errorf("protocol: %w: shared welcome", ErrWelcomeKey)
	}
	metadata, err := aead.Open(nil, p.metadataNonce, v1.GetWelcomeMetadata(), nil)
	if err != nil {
		return nil, fmt.Errorf("protocol: %w: metadata of a shared welcome", ErrWelcomeKey)
	}
	var w mlsapi.WelcomeMetadata
	if err := unmarshal(metadata, &w); err != nil {
		return nil, fmt.Errorf("protocol: %w: metadata of a shared welcome: %w", ErrWelcome, err)
	}
	return &Welcome{message, w.GetMessageCursor()}, nil
}

// ShareWelcome encrypts a Welcome for several installations: it returns the message
// for the shared topic, which goes first, and the pointer, to be wrapped for each by
// [WelcomePointer.Wrap].
func ShareWelcome(welcome []byte, commitID uint64) (*mlsapi.WelcomeMessageInput, *WelcomePointer, error) {
	metadata, err := marshal(&mlsapi.WelcomeMetadata{MessageCursor: commitID})
	if err != nil {
		return nil, nil, fmt.Errorf("protocol: share welcome: %w", err)
	}
	random := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	p := &WelcomePointer{random(32), random(chacha20poly1305.KeySize), random(chacha20poly1305.NonceSize), random(chacha20poly1305.NonceSize)}
	// Two equal nonces would need 2^48 tries; the last bit makes it none.
	p.dataNonce[0] &^= 1
	p.metadataNonce[0] |= 1
	aead, err := chacha20poly1305.New(p.key)
	if err != nil {
		return nil, nil, fmt.Errorf("protocol: share welcome: %w", err)
	}
	return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_V1_{V1: &mlsapi.WelcomeMessageInput_V1{
		InstallationKey:  p.Destination,
		Data:             aead.Seal(nil, p.dataNonce, welcome, nil),
		WrapperAlgorithm: symmetric,
		WelcomeMetadata:  aead.Seal(nil, p.metadataNonce, metadata, nil),
	}}}, p, nil
}

// Wrap wraps the pointer for one installation, whose wrapper has to be X-Wing. The
// errors are [ErrWelcome] if it is another, and [hpke.ErrInvalidKey].
func (p *WelcomePointer) Wrap(installation identity.Identifier, to identity.WelcomeWrapper) (*mlsapi.WelcomeMessageInput, error) {
	if to.Algorithm != xwing {
		return nil, fmt.Errorf("protocol: %w: pointers are for X-Wing", ErrWelcome)
	}
	w := xwingWrapper()
	enc, ciphertext, err := w.suite.Seal(nil, to.PublicKey, w.info, nil, p.Marshal())
	if err != nil {
		return nil, fmt.Errorf("protocol: wrap welcome pointer: %w", err)
	}
	return &mlsapi.WelcomeMessageInput{Version: &mlsapi.WelcomeMessageInput_WelcomePointer_{
		WelcomePointer: &mlsapi.WelcomeMessageInput_WelcomePointer{
			InstallationKey:  installation.Bytes(),
			WelcomePointer:   appendOpaque(appendOpaque(nil, enc), ciphertext),
			HpkePublicKey:    to.PublicKey,
			WrapperAlgorithm: pointerXWing,
		},
	}}, nil
}
