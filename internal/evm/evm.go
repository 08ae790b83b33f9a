// Package evm assembles programs for the Ethereum virtual machine, so that
// those that this project runs on chains are in the repository as source.
package evm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
)

// opcodes of instructions that have no operand in the program; PUSH has, and is
// written as its operand alone.
var opcodes = map[string]byte{
	"STOP": 0x00, "ADD": 0x01, "SUB": 0x03, "DIV": 0x04,
	"GT": 0x11, "EQ": 0x14, "ISZERO": 0x15, "AND": 0x16, "OR": 0x17, "BYTE": 0x1a,
	"CALLDATALOAD": 0x35, "CALLDATASIZE": 0x36, "CALLDATACOPY": 0x37,
	"CODESIZE": 0x38, "CODECOPY": 0x39, "EXTCODESIZE": 0x3b, "RETURNDATASIZE": 0x3d,
	"POP": 0x50, "MLOAD": 0x51, "MSTORE": 0x52, "MSTORE8": 0x53, "SLOAD": 0x54, "SSTORE": 0x55,
	"JUMP": 0x56, "JUMPI": 0x57, "GAS": 0x5a,
	"DUP1":    0x80,
	"SWAP1":   0x90,
	"CREATE2": 0xf5, "CALL": 0xf1, "RETURN": 0xf3, "STATICCALL": 0xfa, "REVERT": 0xfd, "INVALID": 0xfe,
}

const (
	push1    = 0x60
	push2    = 0x61
	jumpdest = 0x5b
)

// Assemble translates a program. Words are separated by white space; a
// semicolon begins a comment that ends with the line. The words are
//
//	ADD       an instruction
//	0x1f 31   a number of up to 256 bits, which is pushed
//	here:     a place that can be jumped to
//	@here     the offset of a place, which is pushed
//	@end      the length of the program, where data that is appended begins
func Assemble(source string) ([]byte, error) {
	var code bytes.Buffer
	places := map[string]int{}
	uses := map[int]string{} // places by the offset where they are needed
	for i, line := range strings.Split(source, "\n") {
		line, _, _ = strings.Cut(line, ";")
		for _, word := range strings.Fields(line) {
			opcode, known := opcodes[word]
			label, isLabel := strings.CutSuffix(word, ":")
			use, isUse := strings.CutPrefix(word, "@")
			switch {
			case known:
				code.WriteByte(opcode)
			case isLabel:
				if _, twice := places[label]; twice || label == "" || label == "end" {
					return nil, fmt.Errorf("evm: line %d: place %q is there already", i+1, label)
				}
				places[label] = code.Len()
				code.WriteByte(jumpdest)
			case isUse:
				code.WriteByte(push2)
				uses[code.Len()] = use
				code.Write([]byte{0, 0})
			default:
				number, ok := new(big.Int).SetString(word, 0)
				if !ok || number.Sign() < 0 || number.BitLen() > 256 {
					return nil, fmt.Errorf("evm: line %d: what is %q?", i+1, word)
				}
				n := max(1, (number.BitLen()+7)/8)
				code.WriteByte(push1 + byte(n-1))
				code.Write(number.FillBytes(make([]byte, n)))
			}
		}
	}
	out := code.Bytes()
	places["end"] = len(out)
	if len(out) > 1<<16-1 {
		return nil, fmt.Errorf("evm: a program of %d bytes", len(out))
	}
	for at, name := range uses {
		place, known := places[name]
		if !known {
			return nil, fmt.Errorf("evm: there is no place %q", name)
		}
		binary.BigEndian.PutUint16(out[at:], uint16(place))
	}
	return out, nil
}

// MustAssemble is [Assemble] for a program that is part of this one.
func MustAssemble(source string) []byte {
	code, err := Assemble(source)
	if err != nil {
		panic(err)
	}
	return code
}
