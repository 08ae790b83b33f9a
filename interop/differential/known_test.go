package differential

// knownDifferences are the kinds of messages that ts-mls 1.6.4 and we judge differently,
// each with who is right by RFC 9420. docs/mls-differential.md explains them. A difference
// that none of them matches fails the test.
var knownDifferences = []difference{
	{
		name: "long length", section: "2.1.2", right: "ours",
		what: `.*: over-long length`, ours: "ErrMalformed", theirs: "accepts .*",
	},
	{
		name: leafReused, section: "12.3", right: "ours",
		what: `.* that gives a removed member's leaf away(, .*)?: .*`, ours: "accepts its removal",
		theirs: "InternalError: .*No overlap.*|ValidationError: .*|CryptoError: .*|CryptoVerificationError: .*",
	},
	{
		name: "path that ends below the root", section: "12.4.2", right: "ours",
		what: `forged commit.*` + endsBelowRoot + `: .*`, ours: "accepts commit",
		theirs: "CryptoVerificationError: Could not verify confirmation tag",
	},
	{
		name: unmergedLeaves, section: "12.4.3.1", right: "ours",
		what: `(welcome|group info|forged group info): .*`, ours: "accepts .*", theirs: "ValidationError: " + unmergedDiffers.String(),
	},
	{
		name: "unknown version in capabilities", section: "7.2", right: "ours",
		what: `.*Version(s(\[\])?)? .*`, ours: "accepts .*",
		theirs: "message does not decode|bytes after the message|CodecError: .*|TypeError: .*|InternalError: .*",
	},
	{
		name: "group id of a PublicMessage", section: "6", right: "ours",
		what: `.*GroupID .*`, ours: "ErrWrongGroup", theirs: "accepts (commit|proposal)",
	},
	{
		name: "proposal of an epoch to come", section: "12.4", right: "ours",
		what: `proposal, signed: Public\.Content\.Epoch .*`, ours: "ErrWrongEpoch", theirs: "accepts proposal",
	},
	{
		// Signed with the twin's own key: nobody else can.
		name: "message of one's own", section: "12.4", right: "both",
		what: `(proposal|commit of (ours|theirs).*), signed: Public\.Content\.SenderIndex .*`, ours: "accepts own message",
		theirs: "accepts proposal|CryptoVerificationError: Could not verify confirmation tag|ValidationError: .*|InternalError: .*",
	},
	{
		name: "capabilities of a path's leaf", section: "7.3", right: "ours",
		what: `forged .*commit.*: Path\.Leaf\.(CredentialsOK|ExtensionsOK|ProposalsOK).*`, ours: "ErrCapabilities", theirs: "accepts commit",
	},
	{
		name: "keys of a path", section: "12.4.2", right: "ours",
		what: `forged .*commit.*: (path key|Path\.Leaf\.EncryptionKey|Path\.Leaf\.SignatureKey) .*`,
		ours: "ErrInvalidPath|ErrDuplicateKey", theirs: "accepts commit",
	},
	{
		name: "number of path secrets", section: "12.4.2", right: "ours",
		what: `forged .*commit.*: Path\.Nodes\[\]\.Secrets .*`, ours: "ErrInvalidPath", theirs: "accepts commit",
	},
	{
		name: "keys of who is added", section: "7.3", right: "ours",
		what: `forged commit.*: Proposals\[\]\.Proposal\.Add\.(Leaf\.EncryptionKey|Leaf\.SignatureKey|InitKey) .*|.*: with add of a member.*`,
		ours: "ErrInvalidProposals|ErrDuplicateKey|ErrInvalidPath", theirs: "accepts commit",
	},
	{
		name: "capabilities of who is added", section: "7.3", right: "ours",
		what: `forged commit.*: Proposals\[\]\.Proposal\.Add\.Leaf\.(CredentialsOK|ExtensionsOK|ProposalsOK).*`, ours: "ErrCapabilities", theirs: "accepts commit",
	},
	{
		name: "extensions of a key package", section: "10", right: "both",
		what: `forged commit.*: Proposals\[\]\.Proposal\.Add\.Extensions.*`, ours: "ErrExtensionNotListed|ErrDuplicateExtension", theirs: "accepts commit",
	},
	{
		name: "extensions of the group", section: "12.1.7", right: "ours",
		what: `forged commit.*: (Proposals\[\]\.Proposal\.Extensions.*|with extension that nobody lists.*)`,
		ours: "ErrCapabilities|ErrDuplicateExtension", theirs: "accepts commit",
	},
	{
		name: "empty extensions", section: "12.1.7", right: "ours",
		what: `forged commit.*: (with no extensions.*|Proposals\[\]\.Proposal\.Extensions (drop|none)|Proposals\[\]\.Proposal\.Type .*)`, ours: "accepts commit",
		theirs: "CryptoError: .*|CryptoVerificationError: .*",
	},
	{
		name: "path of a commit of extensions", section: "12.4", right: "ours",
		what: `forged commit: without path \[([^\]]* )?7( .*)?\]`, ours: "ErrMissingPath", theirs: "accepts commit",
	},
	{
		name: "pre-shared key ids", section: "8.4", right: "ours",
		what: `forged .*commit.*: (Proposals\[\]\.Proposal\.PSK\.(Nonce|Usage) .*|with psk with a short nonce.*|with resumption psk of a branch.*)`,
		ours: "ErrInvalidProposals", theirs: "accepts commit",
	},
	{
		name: "unsupported proposals", section: "12.2", right: "ours",
		what: `forged .*commit.*: (Proposals\[\](\.Proposal)?\.Type .*|with custom that nobody lists.*)|commit of (ours|theirs), signed: Public\.Content\.(ContentType .*|Commit\.Proposals\[\].*Type .*)`,
		ours: "ErrUnsupportedProposal|ErrMalformed|ErrUnexpectedEnd|ErrTrailingData|ErrInvalidProposals", theirs: "accepts (commit|proposal)",
	},
	{
		name: "proposals of an external commit", section: "12.2", right: "ours",
		what: `forged external commit: (with .*|Proposals.*)`, ours: "ErrInvalidProposals", theirs: "accepts commit",
	},
	{
		name: "pre-shared keys for who is removed", section: "12.4.2", right: "both",
		what: `forged commit.*: (with unknown psk.*|Proposals\[\]\.Proposal\.PSK\..*)`, ours: "accepts its removal", theirs: "ValidationError: Could not find pskId.*",
	},
	{
		name: "suite of a Welcome", section: "12.4.3.1", right: "ours",
		what: `welcome: .*`, ours: "ErrUnsupportedCipherSuite", theirs: "accepts commit",
	},
	{
		name: "suite of a GroupInfo", section: "12.4.3.2", right: "ours",
		what: `forged group info: Context\.Suite .*`, ours: "ErrUnsupportedCipherSuite", theirs: "accepts joined",
	},
	{
		name: "extension twice", section: "13.4", right: "ours",
		what: `forged group info: .*Extensions .*`, ours: "ErrDuplicateExtension", theirs: "accepts joined",
	},
	{
		name: "what the removed member checks", section: "12.4.2", right: "ours",
		what: `.*`, ours: "Err.*", theirs: "accepts its removal",
	},
	{
		name: "unknown credential types", section: "5.3", right: "both",
		what: `.*Credential\.Type .*`, ours: "accepts .*", theirs: "TypeError: .*|message does not decode|bytes after the message|CodecError: .*",
	},
	{
		// We refuse it when it is committed.
		name: "source of an added leaf", section: "10.1", right: "both",
		what: `forged proposal: add of a member, Add\.Leaf\.Source .*`, ours: "accepts proposal",
		theirs: "message does not decode|bytes after the message|CodecError: .*",
	},
	{
		// ts-mls looks at a proposal when it is committed, and we as far as no other proposal
		// can change what is wrong.
		name: "proposals that can't be valid", section: "12.2", right: "both",
		what: `(forged proposal|proposal(, signed)?|proposal, sealed): .*`,
		ours: "ErrInvalidProposals|ErrExtensionNotListed|ErrDuplicateExtension|ErrLeafNodeSource|ErrLeafNodeSignature|ErrKeyPackageSignature|" +
			"ErrUnsupportedCipherSuite|ErrUnsupportedVersion|ErrUnsupportedProposal|ErrMalformed|ErrUnexpectedEnd|ErrTrailingData|ErrInitKey",
		theirs: "accepts proposal",
	},
}
