package identity

import (
	"encoding/hex"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"google.golang.org/protobuf/proto"

	"github.com/go-xmtp/go-xmtp/proto/gen/associations"
	"github.com/go-xmtp/go-xmtp/proto/gen/contents"
)

// verifyLegacy checks a signature by an identity key of XMTP's second version,
// for which a wallet had vouched. The wallet is the signer, and its voucher is
// what is remembered: one such key can be used in one update ever.
func verifyLegacy(t *signingText, sig *associations.LegacyDelegatedSignature) (verifiedSignature, error) {
	delegate, _, err := recoverECDSA(t.digest(), sig.GetSignature().GetBytes())
	if err != nil {
		return verifiedSignature{}, err
	}
	key := sig.GetDelegatedKey()
	var voucher []byte
	switch u := key.GetSignature().GetUnion().(type) {
	case *contents.Signature_WalletEcdsaCompact:
		voucher = compactSignature(u.WalletEcdsaCompact.GetBytes(), u.WalletEcdsaCompact.GetRecovery())
	case *contents.Signature_EcdsaCompact:
		voucher = compactSignature(u.EcdsaCompact.GetBytes(), u.EcdsaCompact.GetRecovery())
	}
	if len(voucher) != 65 {
		return verifiedSignature{}, ErrSignatureInvalid
	}
	wallet, raw, err := recoverECDSA(TextDigest(legacyText(key.GetKeyBytes())), voucher)
	if err != nil {
		return verifiedSignature{}, err
	}
	var unsigned contents.UnsignedPublicKey
	if err := proto.Unmarshal(key.GetKeyBytes(), &unsigned); err != nil || unsigned.GetUnion() == nil {
		return verifiedSignature{}, ErrSignatureInvalid
	}
	point := unsigned.GetSecp256K1Uncompressed().GetBytes()
	public, err := secp256k1.ParsePubKey(point)
	if err != nil || point[0] > 4 { // hybrid forms
		return verifiedSignature{}, ErrEd25519
	}
	if ethereumIdentifier(public) != delegate {
		return verifiedSignature{}, ErrSignatureInvalid
	}
	return verifiedSignature{kind: signatureLegacy, signer: wallet, raw: string(raw)}, nil
}

// compactSignature joins R and S with the recovery id, of which the reference
// takes the low byte.
func compactSignature(rs []byte, recovery uint32) []byte {
	return append(rs[:len(rs):len(rs)], byte(recovery))
}

// legacyText is what the wallet signed to vouch for the key. Unlike the text of
// identity updates it ends in a slash.
func legacyText(keyBytes []byte) string {
	return "XMTP : Create Identity\n" + hex.EncodeToString(keyBytes) + "\n\nFor more info: https://xmtp.org/signatures/"
}
