package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// PasskeySignature wraps a WebAuthn assertion whose challenge was the text of
// an identity update (its UTF-8 bytes, not a hash of them). publicKey is SEC1
// encoded, signature is ASN.1 DER.
func PasskeySignature(publicKey, signature, authenticatorData, clientDataJSON []byte) *associations.Signature {
	return &associations.Signature{Signature: &associations.Signature_Passkey{
		Passkey: &associations.RecoverablePasskeySignature{
			PublicKey:         publicKey,
			Signature:         signature,
			AuthenticatorData: authenticatorData,
			ClientDataJson:    clientDataJSON,
		},
	}}
}

// verifyPasskey checks a WebAuthn assertion. As everywhere on the network,
// origin, type, flags, counter and the hash of the relying party are not
// looked at: the challenge is what binds the assertion to the text.
func verifyPasskey(t *signingText, sig *associations.RecoverablePasskeySignature) (verifiedSignature, error) {
	client, ok := parseClientData(sig.GetClientDataJson())
	if !ok || client.challenge != t.challenge() {
		return verifiedSignature{}, ErrInvalidClientData
	}
	key, err := parsePasskeyPoint(sig.GetPublicKey())
	if err != nil {
		return verifiedSignature{}, err
	}
	raw, ok := parseECDSASignature(sig.GetSignature())
	if !ok {
		return verifiedSignature{}, ErrSignatureInvalid
	}
	clientHash := sha256.Sum256(sig.GetClientDataJson())
	h := sha256.New()
	h.Write(sig.GetAuthenticatorData())
	h.Write(clientHash[:])
	if !ecdsa.VerifyASN1(key, h.Sum(nil), sig.GetSignature()) {
		return verifiedSignature{}, ErrEd25519
	}
	return verifiedSignature{
		kind:         signatureP256,
		signer:       Passkey(sig.GetPublicKey()),
		relyingParty: client.origin,
		raw:          string(raw),
	}, nil
}

// parsePasskeyPoint reads a point of P-256 in the encodings of SEC1: compressed
// (tags 2 and 3), uncompressed (4), and compact (5), which has the X coordinate
// only and means the lower of the two Y.
func parsePasskeyPoint(b []byte) (*ecdsa.PublicKey, error) {
	curve := elliptic.P256()
	if len(b) == 33 {
		compressed := bytes.Clone(b)
		if b[0] == 5 {
			compressed[0] = 2
		}
		x, y := elliptic.UnmarshalCompressed(curve, compressed)
		if x == nil {
			return nil, ErrInvalidPublicKey
		}
		if b[0] == 5 {
			if other := new(big.Int).Sub(curve.Params().P, y); other.Cmp(y) < 0 {
				y = other
			}
		}
		b = make([]byte, 65)
		b[0] = 4
		x.FillBytes(b[1:33])
		y.FillBytes(b[33:])
	}
	key, err := ecdsa.ParseUncompressedPublicKey(curve, b)
	if err != nil {
		return nil, ErrInvalidPublicKey
	}
	return key, nil
}

// parseECDSASignature reads a DER signature into R and S, 32 bytes each. Both
// must be in the range 1 to n−1.
func parseECDSASignature(der []byte) ([]byte, bool) {
	input := cryptobyte.String(der)
	var seq cryptobyte.String
	var r, s []byte
	if !input.ReadASN1(&seq, asn1.SEQUENCE) || !input.Empty() ||
		!seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) || !seq.Empty() {
		return nil, false
	}
	raw := make([]byte, 64)
	for i, b := range [][]byte{r, s} {
		x := new(big.Int).SetBytes(b)
		if x.Sign() == 0 || x.Cmp(elliptic.P256().Params().N) >= 0 {
			return nil, false
		}
		x.FillBytes(raw[32*i : 32*i+32])
	}
	return raw, true
}

// clientData is what is read of WebAuthn's clientDataJSON.
type clientData struct {
	origin, challenge string
}

// parseClientData is strict where encoding/json is not, since every reader has
// to agree: names are case-sensitive, neither member may come twice, both must
// be strings of valid Unicode. Other members are skipped. The reference's
// decoder also takes the two values as an array, in this order.
func parseClientData(b []byte) (clientData, bool) {
	// From here on the syntax is known to be good, so that the scanner needs
	// to find the ends of things only.
	if !json.Valid(b) {
		return clientData{}, false
	}
	s := jsonScanner{b}
	switch s.peek() {
	case '[':
		var values []string
		for s.enter(); s.peek() != ']'; {
			v, ok := s.text()
			if !ok {
				return clientData{}, false
			}
			values = append(values, v)
		}
		if len(values) != 2 {
			return clientData{}, false
		}
		return clientData{values[0], values[1]}, true
	case '{':
		var origin, challenge *string
		for s.enter(); s.peek() != '}'; {
			name, ok := s.text()
			if !ok {
				return clientData{}, false
			}
			var member **string
			switch name {
			case "origin":
				member = &origin
			case "challenge":
				member = &challenge
			default:
				s.skip()
				continue
			}
			v, ok := s.text()
			if !ok || *member != nil {
				return clientData{}, false
			}
			*member = &v
		}
		if origin == nil || challenge == nil {
			return clientData{}, false
		}
		return clientData{*origin, *challenge}, true
	}
	return clientData{}, false
}

// jsonScanner walks through valid JSON.
type jsonScanner struct {
	rest []byte
}

// peek steps over white space and separators and returns the character that
// follows.
func (s *jsonScanner) peek() byte {
	s.rest = bytes.TrimLeft(s.rest, " \t\r\n,:")
	return s.rest[0]
}

// enter consumes the bracket that peek has shown.
func (s *jsonScanner) enter() { s.rest = s.rest[1:] }

// token consumes a string, number or literal inside an object or array, where
// something always follows.
func (s *jsonScanner) token() []byte {
	n := 0
	if s.rest[0] == '"' {
		for n = 1; s.rest[n] != '"'; n++ {
			if s.rest[n] == '\\' {
				n++
			}
		}
		n++
	} else {
		n = bytes.IndexAny(s.rest, " \t\r\n,]}")
	}
	token := s.rest[:n]
	s.rest = s.rest[n:]
	return token
}

// skip steps over a value.
func (s *jsonScanner) skip() {
	for depth := 0; ; {
		switch s.peek() {
		case '{', '[':
			s.enter()
			depth++
		case '}', ']':
			s.enter()
			depth--
		default:
			s.token()
		}
		if depth == 0 {
			return
		}
	}
}

// text consumes a value and reports whether it was a string of valid Unicode.
func (s *jsonScanner) text() (string, bool) {
	if s.peek() != '"' {
		return "", false
	}
	token := s.token()
	var v string
	if !utf8.Valid(token) || hasLoneSurrogate(token) || json.Unmarshal(token, &v) != nil {
		return "", false
	}
	return v, true
}

// hasLoneSurrogate reports whether an escape of a JSON string is half a pair.
func hasLoneSurrogate(token []byte) bool {
	unit := func(i int) rune {
		if i+6 > len(token) || token[i] != '\\' || token[i+1] != 'u' {
			return -1
		}
		r := rune(0)
		for _, c := range token[i+2 : i+6] {
			switch {
			case c <= '9':
				r = r<<4 | rune(c-'0')
			default:
				r = r<<4 | rune(c|0x20-'a'+10)
			}
		}
		return r
	}
	for i := 0; i < len(token); i++ {
		if token[i] != '\\' {
			continue
		}
		r := unit(i)
		switch {
		case r < 0:
			i++
		case !utf16.IsSurrogate(r):
			i += 5
		case utf16.DecodeRune(r, unit(i+6)) != utf8.RuneError:
			i += 11
		default:
			return true
		}
	}
	return false
}

// encodeChallenge is the form in which WebAuthn shows a challenge.
func encodeChallenge(text string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}
