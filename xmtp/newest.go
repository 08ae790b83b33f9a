package xmtp

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
	"github.com/go-xmtp/go-xmtp/protocol"
)

// NewestMessage is where the log of a conversation ends.
type NewestMessage struct {
	// SequenceID is the node's number of the message, At when it got it.
	SequenceID uint64
	At         time.Time
}

// NewestMessages asks the node where the logs of conversations, given by id, end,
// for instance to tell whether there is anything new without opening a client. It
// can be any message: what it is shows only to members. Conversations without
// messages are left out. Of the options those of the network count.
func NewestMessages(ctx context.Context, conversationIDs []string, list ...Option) (map[string]NewestMessage, error) {
	return without(list, func(x *inboxes, _ *options) (map[string]NewestMessage, error) {
		request := &mlsapi.GetNewestGroupMessageRequest{}
		for _, s := range conversationIDs {
			id, err := hex.DecodeString(s)
			if err != nil || len(id) != protocol.GroupIDSize {
				return nil, fmt.Errorf("xmtp: newest messages: %.70q is no conversation id", s)
			}
			request.GroupIds = append(request.GroupIds, id)
		}
		response, err := x.node.MLS.GetNewestGroupMessage(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("xmtp: newest messages: %w", err)
		}
		if len(response.Responses) != len(conversationIDs) {
			return nil, fmt.Errorf("xmtp: newest messages: %w: %d about %d conversations", ErrNodeAnswer, len(response.Responses), len(conversationIDs))
		}
		newest := map[string]NewestMessage{}
		for i, answer := range response.Responses {
			if m := answer.GetGroupMessage().GetV1(); m != nil {
				newest[conversationIDs[i]] = NewestMessage{m.Id, time.Unix(0, int64(m.CreatedNs))}
			}
		}
		return newest, nil
	})
}
