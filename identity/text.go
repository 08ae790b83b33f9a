package identity

import (
	"strings"
	"time"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
)

// SignatureText returns the text that all signatures of u are made over. It
// does not look at signatures. It fails, as [Verify] would, if u can't be
// decoded.
func SignatureText(u *associations.IdentityUpdate) (string, error) {
	actions, err := decodeActions(u)
	if err != nil {
		return "", err
	}
	return signatureText(u.GetInboxId(), u.GetClientTimestampNs(), actions), nil
}

func signatureText(inboxID string, timestampNS uint64, actions []action) string {
	var b strings.Builder
	b.Grow(200 + 120*len(actions))
	b.WriteString("XMTP : Authenticate to inbox\n\nInbox ID: ")
	b.WriteString(inboxID)
	b.WriteString("\nCurrent time: ")
	// The reference reads the timestamp as signed. Format cuts fractions off
	// a time that is normalised to non-negative ones, which is flooring.
	b.WriteString(time.Unix(0, int64(timestampNS)).UTC().Format(time.RFC3339))
	b.WriteString("\n\n")
	for i := range actions {
		if i > 0 {
			b.WriteByte('\n')
		}
		actions[i].describe(&b)
	}
	b.WriteString("\n\nFor more info: https://xmtp.org/signatures")
	return b.String()
}

// describe writes the two lines of an action.
func (a *action) describe(b *strings.Builder) {
	var line, label string
	switch a.op {
	case opCreate:
		line, label = "- Create inbox", "Owner"
	case opChangeRecovery:
		// Also for passkeys.
		line, label = "- Change inbox recovery address", "Address"
	case opAdd:
		switch a.target.kind {
		case KindEthereum:
			line, label = "- Link address to inbox", "Address"
		case KindPasskey:
			line, label = "- Link passkey to inbox", "Passkey"
		case KindInstallation:
			line, label = "- Grant messaging access to app", "ID"
		}
	case opRevoke:
		switch a.target.kind {
		case KindEthereum:
			line, label = "- Unlink address from inbox", "Address"
		case KindPasskey:
			line, label = "- Unlink passkey from inbox", "Passkey"
		case KindInstallation:
			line, label = "- Revoke messaging access from app", "ID"
		}
	}
	b.WriteString(line)
	b.WriteString("\n  (")
	b.WriteString(label)
	b.WriteString(": ")
	b.WriteString(a.target.String())
	b.WriteByte(')')
}
