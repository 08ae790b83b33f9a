package chain

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/go-xmtp/go-xmtp/internal/evm"
)

// magic is what a wallet answers that accepts a signature.
const magic = "0x1626ba7e00000000000000000000000000000000000000000000000000000000"

// Wallets are codes of contracts that are asked whether they accept a signature.
var (
	// Owned accepts the signatures of the key whose address is in its slot 0. Any
	// other call than the question changes that address to its argument.
	Owned = evm.MustAssemble(`
		0x100000000000000000000000000000000000000000000000000000000 0 CALLDATALOAD DIV
		0x1626ba7e EQ @question JUMPI
		4 CALLDATALOAD 0 SSTORE STOP
	question:
		4 CALLDATALOAD 0 MSTORE                ; hash
		0xa4 CALLDATALOAD 0 BYTE 0x20 MSTORE   ; v
		0x64 CALLDATALOAD 0x40 MSTORE          ; r
		0x84 CALLDATALOAD 0x60 MSTORE          ; s
		0x20 0x80 0x80 0 1 GAS STATICCALL POP
		0x80 MLOAD 0 SLOAD EQ @yes JUMPI
		0xffffffff00000000000000000000000000000000000000000000000000000000 0 MSTORE 0x20 0 RETURN
	yes:
		` + magic + ` 0 MSTORE 0x20 0 RETURN`)
	// Trusting accepts everything, also what is no signature.
	Trusting = evm.MustAssemble(magic + ` 0 MSTORE 0x20 0 RETURN`)
	// Long accepts everything, and says more than that.
	Long = evm.MustAssemble(magic + ` 0 MSTORE 0x400 0 RETURN`)

	// Refusing answers with a word that isn't magic.
	Refusing = evm.MustAssemble(`1 0 MSTORE 0x20 0 RETURN`)
	// Short answers with the four bytes alone.
	Short = evm.MustAssemble(magic + ` 0 MSTORE 4 0 RETURN`)
	// Dirty answers with a word that only begins well.
	Dirty = evm.MustAssemble(magic + ` 1 OR 0 MSTORE 0x20 0 RETURN`)
	// Silent answers nothing.
	Silent = evm.MustAssemble(`STOP`)
	// Huge answers with a megabyte.
	Huge = evm.MustAssemble(`0x100000 0 RETURN`)
	// Reverting fails, with the magic word.
	Reverting = evm.MustAssemble(magic + ` 0 MSTORE 0x20 0 REVERT`)
	// Failing fails with all the gas it has.
	Failing = evm.MustAssemble(`INVALID`)
	// Burning never ends.
	Burning = evm.MustAssemble(`again: @again JUMP`)
	// Writing would accept everything if it could write.
	Writing = evm.MustAssemble(`1 0 SSTORE ` + magic + ` 0 MSTORE 0x20 0 RETURN`)
)

// Factory creates the contract that its argument says: 32 bytes of salt, then
// the creation code. It fails if that does.
var Factory = evm.MustAssemble(`
		0x20 CALLDATASIZE SUB
		DUP1 0x20 0 CALLDATACOPY
		0 CALLDATALOAD SWAP1
		0 0 CREATE2
		DUP1 @made JUMPI
		0 0 REVERT
	made:
		0 MSTORE 0x20 0 RETURN`)

// Creation is code that makes a contract of a code, with a word in its slot 0.
func Creation(runtime []byte, slot0 [32]byte) []byte {
	code := evm.MustAssemble(`
		0x20 @end 0 CODECOPY
		0 MLOAD 0 SSTORE
		0x20 @end ADD CODESIZE SUB
		DUP1 0x20 @end ADD 0 CODECOPY
		0 RETURN`)
	return append(append(code, slot0[:]...), runtime...)
}

// Counterfactual is a wallet that a factory can create at any time.
type Counterfactual struct {
	Address common.Address
	Factory common.Address
	Order   []byte // what the factory is told
}

// Plan says where the factory will create a contract.
func Plan(factory common.Address, creation []byte, salt [32]byte) Counterfactual {
	return Counterfactual{
		Address: crypto.CreateAddress2(factory, salt, crypto.Keccak256(creation)),
		Factory: factory,
		Order:   append(salt[:], creation...),
	}
}

// Wrap adds to a signature how its wallet is created, as ERC-6492 says.
func (c Counterfactual) Wrap(signature []byte) []byte {
	word := func(n int) []byte { return common.LeftPadBytes(binary.BigEndian.AppendUint32(nil, uint32(n)), 32) }
	padded := func(b []byte) []byte { return common.RightPadBytes(b, (len(b)+31)/32*32) }
	order := append(word(len(c.Order)), padded(c.Order)...)
	var out []byte
	out = append(out, common.LeftPadBytes(c.Factory[:], 32)...)
	out = append(out, word(3*32)...)
	out = append(out, word(3*32+len(order))...)
	out = append(out, order...)
	out = append(out, word(len(signature))...)
	out = append(out, padded(signature)...)
	return append(out, common.FromHex("0x6492649264926492649264926492649264926492649264926492649264926492")...)
}
