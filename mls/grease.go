package mls

import (
	"crypto/rand"
	"slices"
)

// greaseValue is one of the 15 values that mean nothing (§13.5).
func greaseValue() uint16 {
	for {
		var b [1]byte
		rand.Read(b[:])
		if i := uint16(b[0] & 15); i < 15 {
			return 0x0a0a + 0x1010*i
		}
	}
}

// grease adds values that mean nothing to all lists of capabilities; two extensions,
// one for the leaf and one for the key package.
func grease(c Capabilities) Capabilities {
	c.CipherSuites = append(slices.Clip(c.CipherSuites), CipherSuite(greaseValue()))
	c.Proposals = append(slices.Clip(c.Proposals), ProposalType(greaseValue()))
	c.Credentials = append(slices.Clip(c.Credentials), CredentialType(greaseValue()))
	c.Extensions = slices.Clip(c.Extensions)
	for range greaseExtensions {
		c.Extensions = append(c.Extensions, ExtensionType(greaseValue()))
	}
	return c
}

const greaseExtensions = 2

// greaseExtension is the i-th of the extensions that mean nothing.
func greaseExtension(c Capabilities, i int) Extension {
	return Extension{c.Extensions[len(c.Extensions)-greaseExtensions+i], greaseData()}
}

func greaseData() []byte {
	data := make([]byte, 1+greaseValue()>>12)
	rand.Read(data)
	return data
}

// grease adds an extension that means nothing, if that is wanted.
func (g *groupInfo) grease(c *Config) {
	if c.GREASE {
		g.extensions = append(g.extensions, Extension{ExtensionType(greaseValue()), greaseData()})
	}
}
