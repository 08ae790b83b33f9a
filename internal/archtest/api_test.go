package archtest

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/api from the packages as they are")

// TestPublicAPI compares what "go doc -all" says of each public package with a
// golden file, so that no change of the surface goes unseen.
func TestPublicAPI(t *testing.T) {
	folder := filepath.Join("testdata", "api")
	if *update {
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	golden := map[string]bool{}
	for _, p := range packages(t) {
		if !public(p) {
			continue
		}
		name := strings.ReplaceAll(p.path(), "/", "_") + ".txt"
		golden[name] = true
		t.Run(p.path(), func(t *testing.T) {
			got := surface(t, p)
			path := filepath.Join(folder, name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v\nA new package: go run ./internal/task generate", err)
			}
			want = bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
				t.Errorf("The public API has changed. If that is meant: go run ./internal/task generate\n%s", diff)
			}
		})
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !golden[entry.Name()] {
			t.Errorf("%s is the API of no package: go run ./internal/task generate", entry.Name())
		}
	}
}

// public tells whether users can import a package. What is generated in proto/gen
// has its definition, the .proto files, as its golden file.
func public(p pkg) bool {
	path := p.path()
	return p.Name != "main" && !within(path, "proto/gen") && !within(path, "internal") && !strings.Contains(path, "/internal")
}

func surface(t *testing.T, p pkg) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "doc", "-all", p.ImportPath)
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go doc: %v\n%s", err, stderr.Bytes())
	}
	return bytes.ReplaceAll(out, []byte("\r\n"), []byte("\n"))
}
