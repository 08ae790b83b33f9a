package mls

import "fmt"

// ProtocolVersion is a version of MLS (§6).
type ProtocolVersion uint16

// MLS10 is the version that RFC 9420 defines.
const MLS10 ProtocolVersion = 1

// CipherSuite is the number of a cipher suite (§17.1).
type CipherSuite uint16

// The cipher suites that this package implements (§17.1).
const (
	X25519AES128SHA256Ed25519 CipherSuite = 1
	P256AES128SHA256P256      CipherSuite = 2
	X25519ChaChaSHA256Ed25519 CipherSuite = 3
	P521AES256SHA512P521      CipherSuite = 5
	P384AES256SHA384P384      CipherSuite = 7
)

// WireFormat tells what an MLSMessage carries (§6).
type WireFormat uint16

// The wire formats (§17.2).
const (
	WireFormatPublicMessage  WireFormat = 1
	WireFormatPrivateMessage WireFormat = 2
	WireFormatWelcome        WireFormat = 3
	WireFormatGroupInfo      WireFormat = 4
	WireFormatKeyPackage     WireFormat = 5
)

// ContentType tells what a group message carries (§6).
type ContentType uint8

// The content types (§6).
const (
	ContentTypeApplication ContentType = 1
	ContentTypeProposal    ContentType = 2
	ContentTypeCommit      ContentType = 3
)

func (t ContentType) String() string {
	switch t {
	case ContentTypeApplication:
		return "application"
	case ContentTypeProposal:
		return "proposal"
	case ContentTypeCommit:
		return "commit"
	}
	return fmt.Sprintf("ContentType(%d)", uint8(t))
}

// ExtensionType is the number of an extension (§17.3). Numbers that the package
// doesn't know are carried along.
type ExtensionType uint16

// The extensions that the package knows (§17.3; the last two: draft-ietf-mls-extensions).
const (
	ExtensionApplicationID        ExtensionType = 1
	ExtensionRatchetTree          ExtensionType = 2
	ExtensionRequiredCapabilities ExtensionType = 3
	ExtensionExternalPub          ExtensionType = 4
	ExtensionExternalSenders      ExtensionType = 5
	ExtensionAppDataDictionary    ExtensionType = 6
	ExtensionLastResort           ExtensionType = 0x000a
)

// isDefault tells whether every client supports t without listing it (§7.2).
func (t ExtensionType) isDefault() bool {
	return t >= ExtensionApplicationID && t <= ExtensionExternalSenders
}

// ProposalType is the number of a proposal (§17.4).
type ProposalType uint16

// The proposals that the package knows (§17.4; from ProposalAppDataUpdate on:
// draft-ietf-mls-extensions).
const (
	ProposalAdd                    ProposalType = 1
	ProposalUpdate                 ProposalType = 2
	ProposalRemove                 ProposalType = 3
	ProposalPreSharedKey           ProposalType = 4
	ProposalReInit                 ProposalType = 5
	ProposalExternalInit           ProposalType = 6
	ProposalGroupContextExtensions ProposalType = 7
	ProposalAppDataUpdate          ProposalType = 8
	ProposalAppEphemeral           ProposalType = 9
	ProposalSelfRemove             ProposalType = 10
)

// isDefault tells whether every client supports t without listing it (§7.2).
func (t ProposalType) isDefault() bool {
	return t >= ProposalAdd && t <= ProposalGroupContextExtensions
}

// CredentialType is the number of a kind of credential (§17.5).
type CredentialType uint16

// The credential types of RFC 9420 (§17.5).
const (
	CredentialBasic CredentialType = 1
	CredentialX509  CredentialType = 2
)
