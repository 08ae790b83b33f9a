package schedule

import (
	"fmt"
	"math"

	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// PSK is a pre-shared key that goes into an epoch (§8.4).
type PSK struct {
	ID     []byte // the encoded PreSharedKeyID
	Secret suite.Secret
}

// PSKSecret folds psks into the psk_secret, in order; without any it is Nh
// zero bytes. It fails for more than 65,535.
func PSKSecret(s *suite.Suite, psks []PSK) (suite.Secret, error) {
	if len(psks) > math.MaxUint16 {
		return nil, fmt.Errorf("%d pre-shared keys in one epoch", len(psks))
	}
	zero := make(suite.Secret, s.HashSize())
	folded := make(suite.Secret, s.HashSize())
	input := make(suite.Secret, s.HashSize())
	defer input.Wipe()
	for i, p := range psks {
		label := append(make([]byte, 0, len(p.ID)+4), p.ID...)
		label = wire.AppendUint16(label, uint16(i))
		label = wire.AppendUint16(label, uint16(len(psks)))
		extracted := s.Extract(zero, p.Secret)
		s.ExpandWithLabel(input, extracted, "derived psk", label)
		extracted.Wipe()
		next := s.Extract(input, folded)
		folded.Wipe()
		folded = next
	}
	return folded, nil
}
