package api

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/identity"
	"github.com/go-xmtp/go-xmtp/mls"
	"github.com/go-xmtp/go-xmtp/node/internal/order"
	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/mlscontents"
)

var errOtherTopic = errors.New("the payload is of another topic")

// CheckStored tells what is wrong with a stored record: whether its payload can be
// decoded, belongs to its topic, and is as its facts say. Signatures of identity
// updates are not checked again: their chains may be out of reach.
func CheckStored(r *order.Record) error {
	switch r.Kind {
	case order.GroupMessage:
		return checkStoredMessage(r)
	case order.Welcome:
		facts, err := order.ParseWelcomeFacts(r.Facts)
		if err == nil && !facts.Pointer && len(r.Payload) == 0 {
			err = errors.New("an empty welcome")
		}
		return err
	case order.KeyPackage:
		facts, err := order.ParseKeyPackageFacts(r.Facts)
		if err != nil {
			return err
		}
		// As of the beginning of its lifetime, which is over for most.
		info, err := identity.VerifyKeyPackage(r.Payload, time.Unix(int64(facts.NotBefore), 0))
		if err == nil && string(info.InstallationKey[:]) != r.ID {
			err = errOtherTopic
		}
		return err
	case order.IdentityUpdate:
		update := &associations.IdentityUpdate{}
		if err := proto.Unmarshal(r.Payload, update); err != nil {
			return err
		}
		if update.InboxId != hex.EncodeToString([]byte(r.ID)) {
			return errOtherTopic
		}
		return nil
	case order.CommitLog:
		return proto.Unmarshal(r.Payload, &mlscontents.CommitLogEntry{})
	}
	return fmt.Errorf("a record of kind %d", r.Kind)
}

func checkStoredMessage(r *order.Record) error {
	facts, err := order.ParseGroupFacts(r.Facts)
	if err != nil {
		return err
	}
	header, _, err := mls.ParseHeader(r.Payload)
	switch {
	case err != nil:
		return err
	case string(header.GroupID) != r.ID:
		return errOtherTopic
	case facts.Commit != (header.ContentType != mls.ContentTypeApplication):
		return errors.New("it is not noted whether it is a commit")
	}
	return nil
}
