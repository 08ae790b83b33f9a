// Package official runs official, unmodified XMTP SDKs for tests: it installs them from
// the package registry that npm is set up for, starts them on Node.js or in Chromium and
// drives them over a pipe. It needs npm, on Linux systems older than the SDKs' native
// code apt, and a Chromium that is there already.
package official

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SDK names one of the versions of @xmtp/node-sdk and @xmtp/browser-sdk that
// js/package.json installs side by side.
type SDK string

// The versions that a node has to serve.
const (
	Oldest   SDK = "sdk-oldest"   // node-sdk 5.5.0, bindings 1.9.1
	Baseline SDK = "sdk-baseline" // node-sdk 6.0.0, bindings 1.10.0
	Newest   SDK = "sdk-newest"   // node-sdk 6.1.0 nightly, bindings 1.11.0 nightly

	BrowserBaseline SDK = "browser-baseline" // browser-sdk 7.0.0, bindings 1.10.0
	BrowserNewest   SDK = "browser-newest"   // browser-sdk 7.1.0, bindings 1.11.0
)

// InBrowser tells the SDKs that need [Toolchain.Chromium].
func (sdk SDK) InBrowser() bool { return sdk == BrowserBaseline || sdk == BrowserNewest }

// ErrUnavailable says that this machine can't run official SDKs: Node.js, npm, a package
// or a C library that they need is missing and could not be had.
var ErrUnavailable = errors.New("official SDKs can't run here")

// minGlibc is what the Linux binary of bindings 1.10.0 was linked against.
var minGlibc = [2]int{2, 38}

// newerRelease is the Debian release whose C library serves on older systems.
const newerRelease = "trixie"

// Toolchain is an installed set of SDKs and the way to start Node.js for them.
type Toolchain struct {
	// Scripts is the folder of agent.mjs, browser.mjs and node_modules.
	Scripts string
	// Node starts Node.js: a path, either of node itself or of a script that runs it
	// with a newer C library. Child processes of such a Node.js use the same script.
	Node string
	// Npm is the path of npm.
	Npm string
	// Chromium is the path of the browser; empty where there is none.
	Chromium string
}

var installed = sync.OnceValues(func() (*Toolchain, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	return install(ctx)
})

// Install makes the SDKs ready to run, once for a test binary, and returns how to run
// them. Everything it fetches goes into folders that git ignores and stays for the next
// run. Its error wraps [ErrUnavailable] and says what was missing.
func Install() (*Toolchain, error) {
	return installed()
}

func install(ctx context.Context) (*Toolchain, error) {
	root, err := moduleRoot()
	if err != nil {
		return nil, err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w: Node.js 20 or newer is not installed: %w", ErrUnavailable, err)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return nil, fmt.Errorf("%w: npm is not installed: %w", ErrUnavailable, err)
	}
	cache := filepath.Join(root, "..", ".cache", "interop")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("official: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(cache, "install.lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	tools := &Toolchain{Scripts: filepath.Join(root, "js"), Npm: npm, Chromium: findChromium()}
	if tools.Node, err = nodeFor(ctx, node, cache); err != nil {
		return nil, err
	}
	if err := tools.InstallPackages(ctx, tools.Scripts); err != nil {
		return nil, err
	}
	return tools, nil
}

// Supports says what is missing, if anything, to run clients of an SDK; the error wraps
// [ErrUnavailable].
func (tools *Toolchain) Supports(sdk SDK) error {
	if sdk.InBrowser() && tools.Chromium == "" {
		return fmt.Errorf("%w: Chromium is not installed", ErrUnavailable)
	}
	return nil
}

// findChromium looks for a browser where packages put it. None is ever downloaded.
func findChromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Version tells the releases behind an SDK name, as in "node-sdk 6.0.0 (bindings 1.10.0)".
func (tools *Toolchain) Version(sdk SDK) (string, error) {
	text, err := os.ReadFile(filepath.Join(tools.Scripts, "node_modules", string(sdk), "package.json"))
	if err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	var manifest struct {
		Name         string
		Version      string
		Dependencies map[string]string
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return "", fmt.Errorf("official: package.json of %s: %w", sdk, err)
	}
	bindings := "@xmtp/node-bindings"
	if sdk.InBrowser() {
		bindings = "@xmtp/wasm-bindings"
	}
	return fmt.Sprintf("%s %s (bindings %s)", strings.TrimPrefix(manifest.Name, "@xmtp/"), manifest.Version,
		manifest.Dependencies[bindings]), nil
}

// InstallPackages runs "npm ci" in a folder with a package-lock.json, unless its
// node_modules already holds what the lock file asks for.
func (tools *Toolchain) InstallPackages(ctx context.Context, folder string) error {
	wanted, err := os.ReadFile(filepath.Join(folder, "package-lock.json"))
	if err != nil {
		return fmt.Errorf("official: %w", err)
	}
	// npm ci removes node_modules first, so the copy of the lock file that it leaves
	// there on success tells a whole installation from a broken one.
	done := filepath.Join(folder, "node_modules", ".installed-lock.json")
	if have, err := os.ReadFile(done); err == nil && string(have) == string(wanted) {
		return nil
	}
	npm := exec.CommandContext(ctx, tools.Npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	npm.Dir = folder
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: npm ci in %s: %w\n%s", ErrUnavailable, folder, err, tail(string(out), 2000))
	}
	return os.WriteFile(done, wanted, 0o644)
}

// nodeFor returns a Node.js that can load the SDKs' native code: node itself, or where
// the system's C library is too old a script that runs node under a newer one.
func nodeFor(ctx context.Context, node, cache string) (string, error) {
	if runtime.GOOS != "linux" {
		return node, nil
	}
	out, err := exec.CommandContext(ctx, node, "-p", "process.report.getReport().header.glibcVersionRuntime || ''").Output()
	if err != nil {
		return "", fmt.Errorf("%w: asking node for its C library: %w", ErrUnavailable, err)
	}
	version := strings.TrimSpace(string(out))
	if version == "" || glibcAtLeast(version, minGlibc) { // none: musl, for which the SDKs bring a binary
		return node, nil
	}
	libraries, err := newerGlibc(ctx, cache)
	if err != nil {
		return "", fmt.Errorf("%w: the system has glibc %s, the SDKs need %d.%d, and a newer one could not be had: %w",
			ErrUnavailable, version, minGlibc[0], minGlibc[1], err)
	}
	return nodeUnder(libraries, node, cache)
}

func glibcAtLeast(version string, least [2]int) bool {
	major, minor, _ := strings.Cut(version, ".")
	m, err1 := strconv.Atoi(major)
	n, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (m > least[0] || m == least[0] && n >= least[1])
}

// nodeUnder writes the script that runs node with the loader and libraries of a folder.
// Node.js takes the loader for itself then, so a preloaded line puts process.execPath
// right: what starts further Node.js processes (test runners do) must start the script.
func nodeUnder(libraries, node, cache string) (string, error) {
	loaders, err := filepath.Glob(filepath.Join(libraries, "ld-linux-*.so.*"))
	if err != nil || len(loaders) != 1 {
		return "", fmt.Errorf("official: no loader in %s", libraries)
	}
	script := filepath.Join(cache, "bin", "node")
	preload := filepath.Join(cache, "bin", "execpath.cjs")
	if err := os.MkdirAll(filepath.Dir(script), 0o755); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	if err := os.WriteFile(preload, []byte(fmt.Sprintf("process.execPath = %q;\n", script)), 0o644); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	triplet := filepath.Base(libraries)
	text := fmt.Sprintf("#!/bin/sh\nexec '%s' --library-path '%s:/usr/lib/%s:/lib/%s' '%s' --require '%s' \"$@\"\n",
		loaders[0], libraries, triplet, triplet, node, preload)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	return script, nil
}

// newerGlibc returns a folder with the C library of a newer Debian release, taken with
// apt from the mirror that this machine already uses. The system's own package lists and
// packages stay as they are.
func newerGlibc(ctx context.Context, cache string) (string, error) {
	base := filepath.Join(cache, "glibc-"+newerRelease)
	find := func() string {
		found, _ := filepath.Glob(filepath.Join(base, "root", "usr", "lib", "*-linux-gnu", "libc.so.6"))
		if len(found) != 1 {
			return ""
		}
		return filepath.Dir(found[0])
	}
	if libraries := find(); libraries != "" {
		return libraries, nil
	}
	mirror, err := aptMirror(ctx)
	if err != nil {
		return "", err
	}
	for _, folder := range []string{"lists/partial", "cache/archives/partial", "deb"} {
		if err := os.MkdirAll(filepath.Join(base, folder), 0o755); err != nil {
			return "", fmt.Errorf("official: %w", err)
		}
	}
	sources := filepath.Join(base, "sources.list")
	if err := os.WriteFile(sources, []byte("deb "+mirror+" "+newerRelease+" main\n"), 0o644); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	apt := func(args ...string) error {
		private := []string{
			"-o", "Dir::Etc::SourceList=" + sources,
			"-o", "Dir::Etc::SourceParts=-",
			"-o", "Dir::State::Lists=" + filepath.Join(base, "lists"),
			"-o", "Dir::Cache=" + filepath.Join(base, "cache"),
			"-o", "Acquire::Languages=none",
			"-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
		}
		if os.Geteuid() == 0 {
			// apt would hand the download to a user who can't write here.
			private = append(private, "-o", "APT::Sandbox::User=root")
		}
		return run(ctx, filepath.Join(base, "deb"), "apt-get", append(private, args...)...)
	}
	if err := apt("update"); err != nil {
		return "", err
	}
	if err := apt("download", "libc6"); err != nil {
		return "", err
	}
	packages, err := filepath.Glob(filepath.Join(base, "deb", "libc6_*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("official: apt-get download libc6 left %d packages", len(packages))
	}
	// Unpacked beside and renamed, so that a broken run leaves nothing that looks whole.
	unpacked := filepath.Join(base, "unpacking")
	if err := os.RemoveAll(unpacked); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	if err := run(ctx, base, "dpkg", "-x", packages[0], unpacked); err != nil {
		return "", err
	}
	if err := os.Rename(unpacked, filepath.Join(base, "root")); err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	if libraries := find(); libraries != "" {
		return libraries, nil
	}
	return "", fmt.Errorf("official: package %s holds no C library where one was expected", filepath.Base(packages[0]))
}

// aptMirror returns the archive from which this machine's apt takes the packages of its
// own release.
func aptMirror(ctx context.Context) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	name := regexp.MustCompile(`(?m)^VERSION_CODENAME=(\w+)$`).FindSubmatch(release)
	if name == nil || !regexp.MustCompile(`(?m)^ID=debian$`).Match(release) {
		return "", errors.New("official: this is not Debian")
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)").Output()
	if err != nil {
		return "", fmt.Errorf("official: apt-get indextargets: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if field := strings.Fields(line); len(field) == 3 && field[1] == string(name[1]) && field[2] == "main" {
			return field[0], nil
		}
	}
	return "", fmt.Errorf("official: apt has no source for %s main", name[1])
}

func run(ctx context.Context, dir, name string, args ...string) error {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("official: %s: %w\n%s", name, err, tail(string(out), 2000))
	}
	return nil
}

// moduleRoot is the folder of the interop module, found upwards from the working folder,
// which in a test is the folder of the tested package.
func moduleRoot() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("official: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(folder, "js", "agent.mjs")); err == nil {
			return folder, nil
		}
		parent := filepath.Dir(folder)
		if parent == folder {
			return "", errors.New("official: not inside the interop module")
		}
		folder = parent
	}
}

// lock holds a file that only one test process may hold, so that the test binaries of
// several packages don't install over each other. It is a folder: making one is atomic
// on every system.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := os.Mkdir(path, 0o755)
		if err == nil {
			return func() { os.Remove(path) }, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("official: %w", err)
		}
		// Left behind by a process that was killed.
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > 10*time.Minute {
			os.Remove(path)
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("official: waiting for %s: %w", path, ctx.Err())
		}
	}
}

func tail(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return "…" + text[len(text)-n:]
}
