package differential

// The structures of RFC 9420, as far as they go over the wire.

type extension struct {
	Type uint16
	Data []byte
}

type credential struct {
	Type uint16
	Data []byte
}

// leafNode is §7.2.
type leafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    credential
	Versions      []uint16
	Suites        []uint16
	ExtensionsOK  []uint16 // capabilities
	ProposalsOK   []uint16
	CredentialsOK []uint16
	Source        uint8
	NotBefore     uint64 `if:"Source=1"`
	NotAfter      uint64 `if:"Source=1"`
	ParentHash    []byte `if:"Source=3"`
	Extensions    []extension
	Signature     []byte
}

const (
	fromKeyPackage = 1
	fromUpdate     = 2
	fromCommit     = 3
)

// keyPackage is §10.
type keyPackage struct {
	Version    uint16
	Suite      uint16
	InitKey    []byte
	Leaf       leafNode
	Extensions []extension
	Signature  []byte
}

// pskID is §8.4.
type pskID struct {
	Type    uint8
	ID      []byte `if:"Type!=2"`
	Usage   uint8  `if:"Type=2"`
	GroupID []byte `if:"Type=2"`
	Epoch   uint64 `if:"Type=2"`
	Nonce   []byte
}

type reInit struct {
	GroupID    []byte
	Version    uint16
	Suite      uint16
	Extensions []extension
}

// proposal is §12.1; types that the RFC doesn't have carry one vector.
type proposal struct {
	Type         uint16
	Add          keyPackage  `if:"Type=1"`
	Update       leafNode    `if:"Type=2"`
	Remove       uint32      `if:"Type=3"`
	PSK          pskID       `if:"Type=4"`
	ReInit       reInit      `if:"Type=5"`
	ExternalInit []byte      `if:"Type=6"`
	Extensions   []extension `if:"Type=7"`
	Custom       []byte      `if:"Type!=1|2|3|4|5|6|7"`
}

const (
	typeAdd          = 1
	typeUpdate       = 2
	typeRemove       = 3
	typePSK          = 4
	typeReInit       = 5
	typeExternalInit = 6
	typeExtensions   = 7
)

type proposalOrRef struct {
	Type     uint8
	Proposal proposal `if:"Type=1"`
	Ref      []byte   `if:"Type!=1"`
}

type ciphertext struct {
	KEMOutput  []byte
	Ciphertext []byte
}

type pathNode struct {
	EncryptionKey []byte
	Secrets       []ciphertext
}

// updatePath is §7.6.
type updatePath struct {
	Leaf  leafNode
	Nodes []pathNode
}

// commit is §12.4.
type commit struct {
	Proposals []proposalOrRef
	Path      *updatePath
}

// framedContent is §6.
type framedContent struct {
	GroupID           []byte
	Epoch             uint64
	SenderType        uint8
	SenderIndex       uint32 `if:"SenderType=1|2"`
	AuthenticatedData []byte
	ContentType       uint8
	Application       []byte   `if:"ContentType=1"`
	Proposal          proposal `if:"ContentType=2"`
	Commit            commit   `if:"ContentType=3"`
}

const (
	senderMember         = 1
	senderExternal       = 2
	senderNewMember      = 3
	senderJoining        = 4
	contentApplication   = 1
	contentProposal      = 2
	contentCommit        = 3
	formatPublic         = 1
	formatPrivate        = 2
	formatWelcome        = 3
	formatGroupInfo      = 4
	formatKeyPackage     = 5
	extensionRatchetTree = 2
	extensionRequired    = 3
	extensionExternalPub = 4
	extensionSenders     = 5
)

// publicMessage is §6.2.
type publicMessage struct {
	Content         framedContent
	Signature       []byte
	ConfirmationTag []byte `if:"Content.ContentType=3"`
	MembershipTag   []byte `if:"Content.SenderType=1"`
}

// privateMessage is §6.3.
type privateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         uint8
	AuthenticatedData   []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

// privateContent is what a PrivateMessage encrypts, but for the padding (§6.3.1).
type privateContent struct {
	ContentType     uint8    `wire:"-"`
	Application     []byte   `if:"ContentType=1"`
	Proposal        proposal `if:"ContentType=2"`
	Commit          commit   `if:"ContentType=3"`
	Signature       []byte
	ConfirmationTag []byte `if:"ContentType=3"`
}

// senderData is §6.3.2.
type senderData struct {
	Leaf, Generation, Guard uint32
}

// welcome is §12.4.3.1.
type welcome struct {
	Suite              uint16
	Secrets            []memberSecrets
	EncryptedGroupInfo []byte
}

type memberSecrets struct {
	NewMember []byte
	Secrets   ciphertext
}

// groupContext is §8.1.
type groupContext struct {
	Version                 uint16
	Suite                   uint16
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              []extension
}

// groupInfo is §12.4.3.
type groupInfo struct {
	Context         groupContext
	Extensions      []extension
	ConfirmationTag []byte
	Signer          uint32
	Signature       []byte
}

// treeNode is §7.8; a ratchet tree is a []*treeNode.
type treeNode struct {
	Type   uint8
	Leaf   leafNode   `if:"Type=1"`
	Parent parentNode `if:"Type=2"`
}

type parentNode struct {
	EncryptionKey []byte
	ParentHash    []byte
	Unmerged      []uint32
}

// message is an MLSMessage (§6).
type message struct {
	Version    uint16
	Format     uint16
	Public     publicMessage  `if:"Format=1"`
	Private    privateMessage `if:"Format=2"`
	Welcome    welcome        `if:"Format=3"`
	GroupInfo  groupInfo      `if:"Format=4"`
	KeyPackage keyPackage     `if:"Format=5"`
}

// required is the body of the required_capabilities extension (§11.1).
type required struct {
	Extensions  []uint16
	Proposals   []uint16
	Credentials []uint16
}
