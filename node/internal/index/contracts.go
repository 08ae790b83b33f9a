package index

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// contracts notes which signatures of contract wallets an update has shown to
// be valid: it is only stored because they are.
func (b *batch) contracts(r *order.Record) error {
	update := &associations.IdentityUpdate{}
	if err := proto.Unmarshal(r.Payload, update); err != nil {
		return fmt.Errorf("payload of an identity update: %w", err)
	}
	questions, err := identity.ContractQuestions(update)
	if err != nil {
		return fmt.Errorf("payload of an identity update: %w", err)
	}
	number := binary.BigEndian.AppendUint64(nil, r.Number)
	for _, q := range questions {
		if err := b.set(contractKey(q), number); err != nil {
			return err
		}
	}
	return nil
}

// ContractAccepted tells whether a stored update has the signature of a contract
// wallet that the question is about, which is then valid for ever.
func (x *Index) ContractAccepted(q identity.ContractQuestion) (bool, error) {
	value, err := x.get(contractKey(q))
	if err != nil || value == nil {
		return false, err
	}
	if len(value) != 8 {
		return false, fmt.Errorf("%w: contract signature of %d bytes", ErrDamaged, len(value))
	}
	return binary.BigEndian.Uint64(value) <= x.Durable(), nil
}
