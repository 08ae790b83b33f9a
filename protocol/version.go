package protocol

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version is the version of libxmtp whose behaviour on the wire this package has.
// Clients report it, and groups may ask for a newer one (XIP-72).
const Version = "1.10.0"

// version is a parsed version. Any suffix sorts after none, as with the official
// client, and unlike in semantic versioning.
type version struct {
	major, minor, patch uint64
	suffix              string
	hasSuffix           bool
}

// parseVersion reads three numbers with dots between them. What stands between the
// first and the second hyphen of the third part is the suffix.
func parseVersion(s string) (version, error) {
	fail := func() (version, error) { return version{}, fmt.Errorf("%q is not major.minor.patch", s) }
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return fail()
	}
	last := strings.Split(parts[2], "-")
	v := version{hasSuffix: len(last) > 1}
	if v.hasSuffix {
		v.suffix = last[1]
	}
	for i, n := range []*uint64{&v.major, &v.minor, &v.patch} {
		text := parts[i]
		if i == 2 {
			text = last[0]
		}
		var err error
		if *n, err = strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, 32); err != nil {
			return fail()
		}
	}
	return v, nil
}

func (v version) compare(o version) int {
	return cmp.Or(cmp.Compare(v.major, o.major), cmp.Compare(v.minor, o.minor), cmp.Compare(v.patch, o.patch),
		compareBool(v.hasSuffix, o.hasSuffix), cmp.Compare(v.suffix, o.suffix))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// CheckVersion compares the version that a group requires with ours: required is
// the attribute [AttributeMinimumVersion], which not every group has. The errors are
// [VersionError], which pauses the group, and [ErrMinimumVersion].
func CheckVersion(required string) error {
	want, err := parseVersion(required)
	if err != nil {
		return ErrMinimumVersion.because(err)
	}
	own, err := parseVersion(Version)
	if err != nil {
		return ErrMinimumVersion.because(err)
	}
	if want.compare(own) > 0 {
		return &VersionError{required}
	}
	return nil
}
