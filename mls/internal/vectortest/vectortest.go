// Package vectortest finds and decodes the test vectors of the MLS working
// group for tests; the files are not part of this repository.
package vectortest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Hex is a byte string that is written in hexadecimal in the vector files;
// null stands for absent and gives nil.
type Hex []byte

// UnmarshalJSON decodes a JSON string of hexadecimal digits or null.
func (h *Hex) UnmarshalJSON(b []byte) error {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s == nil {
		*h = nil
		return nil
	}
	v, err := hex.DecodeString(*s)
	if err != nil {
		return fmt.Errorf("vectortest: %w", err)
	}
	*h = v
	return nil
}

// Load decodes the file mls/name, such as "tree-math.json", whose elements
// have type T. The folder that holds mls is $XMTP_TESTDATA or else
// ../shared/vectors beside the module root. When the file is missing, the test
// fails under CI=true and is skipped elsewhere, naming what stays unproven.
func Load[T any](t testing.TB, name string) []T {
	t.Helper()
	dir, err := dir()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "mls", name))
	if os.IsNotExist(err) && os.Getenv("CI") != "true" {
		t.Skipf("NOT PROVEN: RFC 9420 vectors of %s. Copy test-vectors/ of github.com/mlswg/mls-implementations to %s or set XMTP_TESTDATA to the folder that holds mls/",
			name, filepath.Join(dir, "mls"))
	}
	if err != nil {
		t.Fatalf("MLS test vectors: %v", err)
	}
	var v []T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("MLS test vectors: %s: %v", name, err)
	}
	if len(v) == 0 {
		t.Fatalf("MLS test vectors: %s is empty", name)
	}
	return v
}

func dir() (string, error) {
	if dir := os.Getenv("XMTP_TESTDATA"); dir != "" {
		return dir, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "..", "shared", "vectors"), nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("vectortest: no go.mod above the working directory")
		}
		dir = parent
	}
}
