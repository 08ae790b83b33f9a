package differential

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// How the trials begin that a pattern is about.
const (
	forgedCommit   = `forged (private |external )?commit[^:]*: `
	memberCommit   = `forged (private )?commit[^:]*: `
	externalCommit = `forged external commit[^:]*: `
	forgedProposal = `forged (private )?proposal: `
	sentCommit     = `commit of (ours|theirs)[^:]*`
)

// How ts-mls says that it can't decode a message.
const undecoded = `message does not decode|bytes after the message|CodecError: .*|TypeError: decoder. is not a function`

// What we say to a proposal whose type is changed to one of a draft that we know.
const malformed = "ErrMalformed|ErrUnexpectedEnd|ErrTrailingData|ErrPadding"

// How it takes a commit.
const taken = `accepts (commit|its removal)`

// knownDifferences are the kinds of messages that ts-mls 1.6.4 and we judge differently,
// each with who is right by RFC 9420. docs/mls-differential.md explains them. A difference
// that none of them matches fails the test; the first that does counts.
var knownDifferences = []difference{
	{
		name: "long length", section: "2.1.2", right: "ours",
		what: `.*: over-long length`, ours: "ErrMalformed", theirs: "accepts .*",
	},
	{
		name: leafReused, section: "12.3", right: "ours",
		what: `.* that gives a removed member's leaf away[^:]*: .*`, ours: "accepts its removal",
		theirs: "InternalError: .*No overlap.*",
	},
	{
		name: "path that ends below the root", section: "12.4.1, 12.4.2", right: "ours",
		what: `forged (private )?commit.*` + endsBelowRoot + `: .*`, ours: "accepts commit",
		theirs: "CryptoVerificationError: Could not verify confirmation tag",
	},
	{
		name: unmergedLeaves, section: "12.4.3.1", right: "ours",
		what: `(welcome|group info|forged group info): .*`, ours: "accepts .*", theirs: "ValidationError: " + unmergedDiffers.String(),
	},
	{
		name: "unknown version in capabilities", section: "7.2", right: "ours",
		what: `.*[. ]Versions(\[\])? .*`, ours: "accepts .*", theirs: undecoded,
	},
	{
		name: "unknown version in a ReInit", section: "12.1.5", right: "ours",
		what: forgedProposal + `.*, ReInit\.Version .*`, ours: "accepts proposal", theirs: undecoded,
	},
	{
		name: "group id of a message", section: "6", right: "both",
		what: `(forged .*commit|.*, signed): (Public\.Content\.)?GroupID .*`, ours: "ErrWrongGroup", theirs: taken + "|accepts proposal",
	},
	{
		name: "proposal of an epoch to come", section: "12.1", right: "ours",
		what: `proposal, signed: Public\.Content\.Epoch .*`, ours: "ErrWrongEpoch", theirs: "accepts proposal",
	},
	{
		// Signed with the twin's own key: nobody else can.
		name: "message of one's own", section: "3.2", right: "both",
		what: `(proposal|` + sentCommit + `), signed: Public\.Content\.SenderIndex .*`, ours: "accepts own message",
		theirs: "accepts proposal|CryptoVerificationError: .*|ValidationError: .*|InternalError: .*",
	},
	{
		name: "capabilities of a path's leaf", section: "7.2, 13.4", right: "ours",
		what: forgedCommit + `Path\.Leaf\.(CredentialsOK|ExtensionsOK)(\[\])? .*`, ours: "ErrCapabilities", theirs: taken,
	},
	{
		name: "keys of a path", section: "5.1.1, 7.3, 12.4.2", right: "ours",
		what: forgedCommit + `(path key|Path\.Leaf\.EncryptionKey|Path\.Leaf\.SignatureKey) .*`,
		ours: "ErrInvalidPath|ErrDuplicateKey", theirs: taken,
	},
	{
		name: "number of path secrets", section: "7.6", right: "ours",
		what: forgedCommit + `Path\.Nodes\[\]\.Secrets .*`, ours: "ErrInvalidPath", theirs: taken,
	},
	{
		name: "keys of who is added", section: "5.1.1, 7.3", right: "ours",
		what: memberCommit + `Proposals\[\]\.Proposal\.Add\.(Leaf\.EncryptionKey|Leaf\.SignatureKey|InitKey) .*`,
		ours: "ErrInvalidProposals|ErrDuplicateKey", theirs: taken,
	},
	{
		name: "keys of a tree", section: "5.1.1", right: "ours",
		what: `forged group info: tree (Leaf|Parent)\.EncryptionKey .*`, ours: "ErrInvalidTree", theirs: "accepts joined",
	},
	{
		name: "capabilities of who is added", section: "12.3, 13.4", right: "ours",
		what: memberCommit + `Proposals\[\]\.Proposal\.Add\.Leaf\.(CredentialsOK|ExtensionsOK)(\[\])? .*`, ours: "ErrCapabilities", theirs: taken,
	},
	{
		name: "capabilities of a leaf of the tree", section: "7.2, 13.4", right: "ours",
		what: `forged group info: tree Leaf\.(CredentialsOK|ExtensionsOK)(\[\])? .*`, ours: "ErrCapabilities", theirs: "accepts joined",
	},
	{
		name: "extensions of a key package", section: "10", right: "both",
		what: memberCommit + `Proposals\[\]\.Proposal\.Add\.Extensions(\[\]\.Type)? .*`, ours: "ErrExtensionNotListed", theirs: taken,
	},
	{
		name: "extension twice", section: "13.4", right: "ours",
		what: memberCommit + `Proposals\[\]\.Proposal\.(Add\.)?Extensions .*|forged group info: .*Extensions .*`,
		ours: "ErrDuplicateExtension", theirs: taken + "|accepts joined",
	},
	{
		name: "extensions of the group", section: "13.4", right: "ours",
		what: memberCommit + `(Proposals\[\]\.Proposal\.Extensions(\[\]\.Type)? .*|with extension that nobody lists( alone)?)`,
		ours: "ErrCapabilities", theirs: taken,
	},
	{
		name: "empty extensions", section: "12.1.7", right: "ours",
		what: memberCommit + `(with no extensions( alone)?|Proposals\[\]\.Proposal\.(Extensions (drop|none)|Type .*))`, ours: "accepts commit",
		theirs: "CryptoError: OpenError: .*|CryptoVerificationError: Could not verify confirmation tag",
	},
	{
		name: "path of a commit of extensions", section: "12.4", right: "ours",
		what: memberCommit + `without path \[([^\]]* )?7( .*)?\]`, ours: "ErrMissingPath", theirs: taken,
	},
	{
		name: "pre-shared key ids", section: "12.1.4", right: "ours",
		what: forgedCommit + `(Proposals\[\]\.Proposal\.PSK\.(Nonce|Usage) .*|with psk with a short nonce( alone)?|with resumption psk of a branch( alone)?)`,
		ours: "ErrInvalidProposals", theirs: taken,
	},
	{
		name: "proposals of an external commit", section: "12.2", right: "ours",
		what: externalCommit + `(with custom that (all list|nobody lists)|Proposals\[\]\.Proposal\.Type .*)`,
		ours: "ErrInvalidProposals", theirs: taken,
	},
	{
		// §12.2 has the rule against it in the list for other commits only.
		name: "pre-shared key twice in an external commit", section: "12.2", right: "both",
		what: externalCommit + `Proposals twice( in a row)?`, ours: "ErrInvalidProposals", theirs: taken,
	},
	{
		name: "unsupported proposals", section: "12.2", right: "ours",
		what: memberCommit + `(Proposals\[\](\.Proposal)?\.Type .*|with custom that nobody lists( alone)?)`,
		ours: "ErrUnsupportedProposal|" + malformed, theirs: taken,
	},
	{
		name: "pre-shared keys for who is removed", section: "12.4.2", right: "both",
		what: memberCommit + `(with unknown psk( alone)?|Proposals\[\]\.Proposal\.PSK\..*)|` +
			sentCommit + `, (signed|sealed: signed): .*Commit\.Proposals\[\]\.Proposal\.PSK\..*`,
		ours:   "accepts its removal",
		theirs: "ValidationError: Could not find pskId.*",
	},
	{
		name: "suite of a Welcome", section: "12.4.3.1", right: "ours",
		what: `welcome: Welcome\.Suite .*`, ours: "ErrUnsupportedCipherSuite", theirs: "accepts commit",
	},
	{
		name: "suite of a GroupInfo", section: "8.1", right: "ours",
		what: `forged group info: Context\.Suite .*`, ours: "ErrUnsupportedCipherSuite", theirs: "accepts joined",
	},
	{
		name: "required capabilities of a GroupInfo", section: "11.1", right: "ours",
		what: `forged group info: Context\.Extensions\[\]\.(Type|Data) .*`, ours: "ErrUnexpectedEnd|ErrTrailingData|ErrMalformed", theirs: "accepts joined",
	},
	{
		name: "last epoch", section: "12", right: "ours",
		what: `forged group info: Context\.Epoch =max`, ours: "ErrWrongEpoch", theirs: "accepts joined",
	},
	{
		name: "what the removed member checks", section: "12.4.2", right: "ours",
		what:   `(` + sentCommit + `, (signed|sealed: signed)|forged (private )?commit[^:]*): .*`,
		ours:   "ErrInvalidPath|ErrDuplicateKey|ErrCapabilities|ErrInvalidProposals|ErrUnsupportedProposal|ErrExtensionNotListed|ErrDuplicateExtension|" + malformed,
		theirs: "accepts its removal",
	},
	{
		name: "unknown credential types", section: "5.3", right: "both",
		what: `.*[. ]Credential\.Type .*`, ours: "accepts proposal", theirs: undecoded,
	},
	{
		// We refuse it when it is committed.
		name: "source of an added leaf", section: "12.1", right: "both",
		what: forgedProposal + `add of a member, Add\.Leaf\.Source .*`, ours: "accepts proposal", theirs: undecoded,
	},
	{
		// ts-mls looks at a proposal when it is committed, and we as far as no other proposal
		// can change what is wrong.
		name: "proposals that can't be valid", section: "12.1", right: "both",
		what: `(forged (private )?proposal|proposal, (signed|sealed: signed)): .*|` + sentCommit + `, signed: Public\.Content\.ContentType .*`,
		ours: "ErrInvalidProposals|ErrExtensionNotListed|ErrDuplicateExtension|ErrLeafNodeSource|ErrLeafNodeSignature|ErrKeyPackageSignature|" +
			"ErrUnsupportedCipherSuite|ErrUnsupportedVersion|ErrUnsupportedProposal|ErrInitKey|" + malformed,
		theirs: "accepts proposal",
	},
}

// The guide has each difference with its section and who is right.
func TestKnownDifferences(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "mls-differential.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| ([^|]*) \| [^|]* \| ([0-9., ]*) \| (ours|theirs|both) \|$`).FindAllStringSubmatch(string(guide), -1)
	said := map[string]string{}
	for _, row := range rows {
		said[row[1]] = row[2] + ", " + row[3]
	}
	for _, d := range knownDifferences {
		if want := d.section + ", " + d.right; said[d.name] != want {
			t.Errorf("%s: the guide says %q, the table %q", d.name, said[d.name], want)
		}
		delete(said, d.name)
	}
	for name := range said {
		t.Errorf("%s: only the guide has it", name)
	}
}
