package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestVersionOrder(t *testing.T) {
	ordered := []string{"0.9.9", "1.0.0", "1.2.3", "1.2.3-alpha", "1.2.3-beta", "1.2.10", "1.10.0", "1.10.0-", "1.10.0-dev", "1.11.0", "2.0.0"}
	for i, a := range ordered {
		for j, b := range ordered {
			x, err := parseVersion(a)
			if err != nil {
				t.Fatal(err)
			}
			y, err := parseVersion(b)
			if err != nil {
				t.Fatal(err)
			}
			if got := x.compare(y); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s and %s compare as %d", a, b, got)
			}
		}
	}
	for _, s := range []string{"+1.+2.+3", "01.2.3", "1.2.3-a-b"} {
		if _, err := parseVersion(s); err != nil {
			t.Error(err)
		}
	}
	if a, _ := parseVersion("1.2.3-a-b"); a.suffix != "a" {
		t.Errorf("suffix %q", a.suffix)
	}
}

func TestCheckVersion(t *testing.T) {
	for _, s := range []string{Version, "1.9.99", "0.0.0", "1.9.0-dev"} {
		if err := CheckVersion(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"1.10.0-dev", "1.10.1", "1.11.0-dev", "2.0.0", "4294967295.0.0"} {
		e, ok := errors.AsType[*VersionError](CheckVersion(s))
		if !ok || e.Required != s || !strings.Contains(e.Error(), s) {
			t.Errorf("%s: %v", s, CheckVersion(s))
		}
	}
	for _, s := range []string{"", "1", "1.2", "1.2.3.4", "1.2.3-a.b", "1.2.x", "1.2.", "a.2.3", "-1.2.3", "1.2.-3", "1.2.3 ", "++1.2.3", "4294967296.0.0"} {
		if err := CheckVersion(s); !errors.Is(err, ErrMinimumVersion) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
