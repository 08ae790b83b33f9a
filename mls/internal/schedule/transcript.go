package schedule

import (
	"github.com/go-xmtp/go-xmtp/mls/internal/suite"
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// ConfirmedTranscriptHash hashes a commit onto the interim transcript hash of
// the epoch before it (§8.2). The parts of input together are the commit's
// ConfirmedTranscriptHashInput: wire format, FramedContent, signature<V>.
func ConfirmedTranscriptHash(s *suite.Suite, interim []byte, input ...[]byte) []byte {
	return s.Hash(nil, append([][]byte{interim}, input...)...)
}

// InterimTranscriptHash hashes the confirmation tag onto the confirmed
// transcript hash (§8.2).
func InterimTranscriptHash(s *suite.Suite, confirmed, confirmationTag []byte) []byte {
	return s.Hash(nil, confirmed, wire.AppendVarint(nil, len(confirmationTag)), confirmationTag)
}
