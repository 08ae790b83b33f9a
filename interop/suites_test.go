package interop

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-xmtp/go-xmtp/interop/official"
	"github.com/go-xmtp/go-xmtp/node"
)

// suite is the test suite of an official SDK, as its authors published it. It is run from
// the source that a developer has; none of it is in this repository.
type suite struct {
	name   string
	source string // environment variable that names a git repository, bare or not
	at     string // tag or commit whose tests belong to the published package
	folder string // of the suite in the repository
	sdk    official.SDK
	passes int // how many pass on the reference node with all its services (5.5.0: measured here)
	// Tests that say nothing about a node and don't pass here, by the beginning of their
	// full name, and why. One that is listed and passes is an error too.
	apart map[string]string
}

const (
	needsInternet = "talks to the public dev network, whatever node is under test"
	needsTestKit  = "needs a build of the bindings with test features, which is not published"
)

var (
	nodeApart     = map[string]string{"Client should support a callback function for dbPath client option": needsInternet}
	bindingsApart = map[string]string{
		"NapiTestBuilder ": needsTestKit,
		"Conversations should error when connection dies": needsTestKit,
	}
)

var suites = []suite{
	{
		name: "node-sdk 5.5.0", source: "XMTP_JS_SUITE", at: "@xmtp/node-sdk@5.5.0", folder: "sdks/node-sdk",
		sdk: official.Oldest, passes: 162, apart: nodeApart,
	},
	{
		name: "node-sdk 6.0.0", source: "XMTP_JS_SUITE", at: "@xmtp/node-sdk@6.0.0", folder: "sdks/node-sdk",
		sdk: official.Baseline, passes: 174, apart: nodeApart,
	},
	{
		name: "agent-sdk 2.3.0", source: "XMTP_JS_SUITE", at: "@xmtp/agent-sdk@2.3.0", folder: "sdks/agent-sdk",
		sdk: official.Baseline, passes: 116, apart: map[string]string{
			"Agent create should set appVersion to include package version": needsInternet,
			"Agent create should allow custom appVersion":                   needsInternet,
		},
	},
	{
		name: "bindings 1.10.0", source: "LIBXMTP_SUITE", at: "v1.10.0", folder: "bindings/node",
		sdk: official.Baseline, passes: 105, apart: bindingsApart,
	},
	{
		name: "browser-sdk 7.0.0", source: "XMTP_JS_SUITE", at: "@xmtp/browser-sdk@7.0.0", folder: "sdks/browser-sdk",
		sdk: official.BrowserBaseline, passes: 194,
	},
	{
		name: "browser-sdk 7.1.0", source: "LIBXMTP_SUITE", at: "browser-sdk-7.1.0", folder: "sdks/js/browser-sdk",
		sdk: official.BrowserNewest, passes: 197,
	},
	{
		name: "node-sdk 6.1.0 nightly", source: "LIBXMTP_SUITE", at: nightly, folder: "sdks/js/node-sdk",
		sdk: official.Newest, passes: 182, apart: nodeApart,
	},
	{
		name: "bindings 1.11.0 nightly", source: "LIBXMTP_SUITE", at: nightly, folder: "bindings/node",
		sdk: official.Newest, passes: 111, apart: bindingsApart,
	},
}

const nightly = "node-sdk-6.1.0-nightly.20260726.b649d1a"

// TestOfficialSuites runs the suites against a node at the SDKs' local default address,
// which is fixed in their tests, so they run one after the other.
func TestOfficialSuites(t *testing.T) {
	long(t)
	for _, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			began := time.Now()
			t.Cleanup(func() { report(t, "official suite of "+suite.name, began) })
			tools := tools(t, suite.sdk)
			source := os.Getenv(suite.source)
			if source == "" {
				t.Skipf("not proven: that the official suite of %s passes: set %s to a clone of its repository", suite.name, suite.source)
			}
			n, err := node.Start(t.Context(), node.Options{
				Listen:        node.DefaultListen,
				WebListen:     node.DefaultWebListen,
				HistoryListen: node.DefaultHistoryListen,
				Ephemeral:     true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			startToxics(t, n.Addr())
			suite.judge(t, suite.run(t, tools, source))
		})
	}
}

// verdict is what the suite's runner tells about one test.
type verdict struct {
	FullName        string   `json:"fullName"`
	Status          string   `json:"status"` // passed, failed, skipped, …
	FailureMessages []string `json:"failureMessages"`
}

func (s suite) judge(t *testing.T, verdicts []verdict) {
	t.Helper()
	passed := 0
	for _, v := range verdicts {
		reason := listed(s.apart, v.FullName)
		switch {
		case v.Status == "passed" && reason == "":
			passed++
		case v.Status == "passed":
			t.Errorf("passes, but is listed as one that can't (%s): %s", reason, v.FullName)
		case v.Status == "failed" && reason == "":
			t.Errorf("failed: %s\n%s", v.FullName, strings.Join(v.FailureMessages, "\n"))
		case v.Status == "failed":
			t.Logf("does not pass here: it %s: %s", reason, v.FullName)
		default:
			t.Logf("%s by its authors: %s", v.Status, v.FullName)
		}
	}
	t.Logf("%s: %d of %d pass", s.name, passed, s.passes)
	if passed < s.passes {
		t.Errorf("%d tests are missing", s.passes-passed)
	}
}

func listed(reasons map[string]string, name string) string {
	for prefix, reason := range reasons {
		if strings.HasPrefix(name, prefix) {
			return reason
		}
	}
	return ""
}

// run unpacks the suite, puts the published packages under it and runs it, unmodified.
func (s suite) run(t *testing.T, tools *official.Toolchain, source string) []verdict {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	runner, err := filepath.Abs("suites")
	if err != nil {
		t.Fatal(err)
	}
	if err := tools.InstallPackages(ctx, runner); err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	if err := unpack(ctx, source, s.at, s.folder, work); err != nil {
		t.Fatal(err)
	}
	if err := s.furnish(tools, runner, work); err != nil {
		t.Fatal(err)
	}
	result := filepath.Join(t.TempDir(), "result.json")
	args := []string{filepath.Join(runner, "node_modules", "vitest", "vitest.mjs"),
		"run", "--reporter=json", "--outputFile=" + result, "--no-file-parallelism"}
	if s.sdk.InBrowser() {
		args = append(args, "--config="+browserConfig)
	}
	command := exec.CommandContext(ctx, tools.Node, args...)
	command.Dir = work
	command.Env = append(os.Environ(), "CI=true", "CHROMIUM="+tools.Chromium)
	out, failed := command.CombinedOutput()
	text, err := os.ReadFile(result)
	if err != nil {
		t.Fatalf("the suite did not run: %v\n%s", failed, out)
	}
	var results struct {
		TestResults []struct {
			Name             string    `json:"name"`
			Message          string    `json:"message"`
			Status           string    `json:"status"`
			AssertionResults []verdict `json:"assertionResults"`
		} `json:"testResults"`
	}
	if err := json.Unmarshal(text, &results); err != nil {
		t.Fatal(err)
	}
	var verdicts []verdict
	for _, file := range results.TestResults {
		if len(file.AssertionResults) == 0 && file.Status == "failed" {
			t.Errorf("%s could not be loaded: %s", filepath.Base(file.Name), file.Message)
		}
		verdicts = append(verdicts, file.AssertionResults...)
	}
	return verdicts
}

// browserConfig is the file in suites that adapts a suite's configuration to the machine.
const browserConfig = "browser.config.mjs"

// furnish lays a node_modules under the suite: the SDK's published packages and what its
// tests use besides.
func (s suite) furnish(tools *official.Toolchain, runner, work string) error {
	link := func(target, name string) error {
		path := filepath.Join(work, "node_modules", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.Symlink(target, path)
	}
	entries, err := os.ReadDir(filepath.Join(runner, "node_modules"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); !strings.HasPrefix(name, ".") && name != "@xmtp" {
			if err := link(filepath.Join(runner, "node_modules", name), name); err != nil {
				return err
			}
		}
	}
	installed := filepath.Join(tools.Scripts, "node_modules")
	platform := "node"
	if s.sdk.InBrowser() {
		platform = "wasm"
	}
	bindings := filepath.Join(installed, string(s.sdk), "node_modules", "@xmtp", platform+"-bindings")
	if _, err := os.Stat(bindings); err != nil { // where npm puts what several could share
		bindings = filepath.Join(installed, "@xmtp", platform+"-bindings")
	}
	packages := map[string]string{
		"@xmtp/" + platform + "-bindings":      bindings,
		"@xmtp/content-type-primitives":        filepath.Join(installed, "@xmtp", "content-type-primitives"),
		"@xmtp/content-type-remote-attachment": filepath.Join(runner, "node_modules", "@xmtp", "content-type-remote-attachment"),
	}
	if !s.sdk.InBrowser() {
		packages["@xmtp/node-sdk"] = filepath.Join(installed, string(s.sdk))
	}
	for name, target := range packages {
		if err := link(target, name); err != nil {
			return err
		}
	}
	if s.sdk.InBrowser() {
		config, err := os.ReadFile(filepath.Join(runner, browserConfig))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(work, browserConfig), config, 0o644)
	}
	if strings.HasPrefix(s.name, "bindings") { // its tests import what the build would have put there
		return os.Symlink(filepath.Join(bindings, "dist"), filepath.Join(work, "dist"))
	}
	return nil
}

// unpack writes one folder of a commit below a directory.
func unpack(ctx context.Context, repository, commit, folder, into string) error {
	git := exec.CommandContext(ctx, "git", "-C", repository, "archive", "--format=tar", commit+":"+folder)
	out, err := git.StdoutPipe()
	if err != nil {
		return err
	}
	var complaint strings.Builder
	git.Stderr = &complaint
	if err := git.Start(); err != nil {
		return err
	}
	unpacking := untar(out, into)
	if _, err := io.Copy(io.Discard, out); err != nil {
		unpacking = errors.Join(unpacking, err)
	}
	if err := git.Wait(); err != nil {
		return fmt.Errorf("git archive %s of %s: %w\n%s", commit, repository, err, complaint.String())
	}
	return unpacking
}

func untar(from io.Reader, into string) error {
	root, err := os.OpenRoot(into)
	if err != nil {
		return err
	}
	defer root.Close()
	archive := tar.NewReader(from)
	for {
		entry, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !slices.Contains([]byte{tar.TypeDir, tar.TypeReg}, entry.Typeflag) {
			continue
		}
		if entry.Typeflag == tar.TypeDir {
			if err := root.MkdirAll(entry.Name, 0o755); err != nil {
				return err
			}
			continue
		}
		file, err := root.Create(entry.Name)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, archive)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
}
