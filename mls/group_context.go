package mls

import (
	"github.com/go-xmtp/go-xmtp/mls/internal/wire"
)

// groupContext is GroupContext (§8.1), what all members of an epoch agree on.
type groupContext struct {
	version                 ProtocolVersion
	suite                   CipherSuite
	groupID                 []byte
	epoch                   uint64
	treeHash                []byte
	confirmedTranscriptHash []byte
	extensions              []Extension

	raw []byte
}

// append encodes the context from its fields.
func (c *groupContext) append(b []byte) []byte {
	b = wire.AppendUint16(b, uint16(c.version))
	b = wire.AppendUint16(b, uint16(c.suite))
	b = wire.AppendOpaque(b, c.groupID)
	b = wire.AppendUint64(b, c.epoch)
	b = wire.AppendOpaque(b, c.treeHash)
	b = wire.AppendOpaque(b, c.confirmedTranscriptHash)
	return appendExtensions(b, c.extensions)
}

func readGroupContext(r *wire.Reader) *groupContext {
	start := r.Offset()
	c := &groupContext{
		version:                 ProtocolVersion(r.Uint16()),
		suite:                   CipherSuite(r.Uint16()),
		groupID:                 r.Opaque(),
		epoch:                   r.Uint64(),
		treeHash:                r.Opaque(),
		confirmedTranscriptHash: r.Opaque(),
		extensions:              readExtensions(r),
	}
	c.raw = r.Since(start)
	return c
}

// groupInfo is GroupInfo (§12.4.3), a member's signed view of an epoch.
type groupInfo struct {
	context         *groupContext
	extensions      []Extension
	confirmationTag []byte
	signer          LeafIndex
	signature       []byte

	unsigned []byte // the encoding up to the signature: GroupInfoTBS
}

// appendUnsigned encodes GroupInfoTBS from the fields.
func (g *groupInfo) appendUnsigned(b []byte) []byte {
	b = g.context.append(b)
	b = appendExtensions(b, g.extensions)
	b = wire.AppendOpaque(b, g.confirmationTag)
	return wire.AppendUint32(b, uint32(g.signer))
}

func (g *groupInfo) append(b []byte) []byte {
	return wire.AppendOpaque(g.appendUnsigned(b), g.signature)
}

func readGroupInfo(r *wire.Reader) *groupInfo {
	start := r.Offset()
	g := &groupInfo{
		context:         readGroupContext(r),
		extensions:      readExtensions(r),
		confirmationTag: r.Opaque(),
		signer:          LeafIndex(r.Uint32()),
	}
	g.unsigned = r.Since(start)
	g.signature = r.Opaque()
	return g
}
