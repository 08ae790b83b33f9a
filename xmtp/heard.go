package xmtp

import (
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// heard is how many messages each sender of an epoch has sent, by the generations of
// his keys, so that those stand out which the node has left out. It is kept in memory
// only, and so knows of epochs that began since the client was opened: more would be a
// write for each message.
type heard struct {
	state *mls.Group
	epoch uint64
	whole bool // the epoch was followed from its beginning
	next  map[mls.LeafIndex]uint32
}

// begin follows an epoch that has just begun.
func (h *heard) begin(state *mls.Group) { *h = heard{state: state, epoch: state.Epoch(), whole: true} }

// take notes a message. If it is not the next one of its sender, those from first to
// before it have not come.
func (h *heard) take(state *mls.Group, m *mls.ApplicationMessage) (first uint32, missing bool) {
	if m.Epoch != state.Epoch() {
		return 0, false
	}
	if h.state != state || h.epoch != m.Epoch {
		*h = heard{state: state, epoch: m.Epoch}
	}
	if h.next == nil {
		h.next = map[mls.LeafIndex]uint32{}
	}
	first, known := h.next[m.Sender]
	if m.Generation >= first {
		h.next[m.Sender] = m.Generation + 1
	}
	return first, (known || h.whole) && m.Generation > first
}

// listen notes a message of the log, and tells of others that are missing before it.
func (g *group) listen(state *mls.Group, m *mls.ApplicationMessage, from protocol.Actor) *MessagesMissing {
	first, missing := g.heard.take(state, m)
	if !missing {
		return nil
	}
	return &MessagesMissing{g.String(), from.InboxID, from.Installation.String(), m.Epoch, first, m.Generation - 1}
}
