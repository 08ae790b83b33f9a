package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Names of steps that the table of checks refers to.
const (
	stepTests    = "tests"
	stepPlain    = "tests without the race detector"
	stepOfficial = "official clients"
)

// withoutRace are the tests that run without the race detector: they do one thing
// after the other for long (cuts at every write, vectors, big requests), or measure
// memory, and it makes them five to twelve times as slow or big. What they run, others
// run under it. packagesWithoutRace is where they are.
const withoutRace = "^Test(WorkingGroupVectors|Crash.*|PowerCut.*|RolledBack.*|Faults.*|DamagedStore|Sweep|Storm" +
	"|RandomTalk|RandomWalk|Conversation|GroupMembersOutOfReach" +
	"|Hostile(Node|Members|MemberAtRandom)|NodeLiesAtRandom|WelcomeFlood|FloodOfPointers" +
	"|S6|SubscribeStalled|S10|T4|T4_.*|T5|I8|I11|LongParts)$"

var packagesWithoutRace = []string{"./mls", "./protocol", "./node", "./node/internal/index", "./xmtp", "./xmtp/internal/store"}

// platforms are those that a release is built for; all of them without cgo.
var platforms = []string{"linux/amd64", "windows/amd64", "darwin/arm64"}

// exe is what programs of this system end with.
var exe = map[bool]string{true: ".exe"}[runtime.GOOS == "windows"]

func (r *runner) testSteps() ([]step, error) {
	steps, err := r.codeSteps()
	if err != nil {
		return nil, err
	}
	var builds []step
	for _, platform := range platforms {
		builds = append(builds, r.buildFor(platform))
	}
	return slices.Concat(builds, steps, []step{
		r.plainTests(20 * time.Minute),
		r.unitTests(20 * time.Minute),
		r.officialClients(25 * time.Minute),
	}), r.expect()
}

func (r *runner) proofSteps() ([]step, error) {
	r.proof = true
	return []step{
		r.buildFor(runtime.GOOS + "/" + runtime.GOARCH),
		r.plainTests(6 * time.Hour),
		r.unitTests(6 * time.Hour),
		r.fuzz(time.Minute, time.Hour),
		r.speed("speed of the node", "-all"),
		r.speed("speed of the client", "client", "-all"),
		r.officialClients(3 * time.Hour),
	}, r.expect()
}

func (r *runner) lintSteps() ([]step, error) {
	steps, err := r.codeSteps()
	return append(steps, r.importsAndAPI()), err
}

// codeSteps look at the code without running it.
func (r *runner) codeSteps() ([]step, error) {
	modules, err := r.modules()
	if err != nil {
		return nil, err
	}
	steps := []step{{"gofmt", time.Minute, r.gofmt}}
	for _, dir := range modules {
		steps = append(steps, r.vet(dir))
	}
	for _, dir := range modules {
		steps = append(steps, r.staticcheck(dir))
	}
	return append(steps, step{"generated code is current", 5 * time.Minute, r.generatedIsCurrent}), nil
}

// importsAndAPI is among the tests too.
func (r *runner) importsAndAPI() step {
	return step{"imports and public API", 5 * time.Minute, func(ctx context.Context) (string, error) {
		return r.goTest(ctx, goCommand("test", "-json", "-vet=off", "./internal/archtest").with("CGO_ENABLED=0"))
	}}
}

func (r *runner) generateSteps() ([]step, error) {
	return []step{
		{"go generate", 5 * time.Minute, func(ctx context.Context) (string, error) {
			_, err := r.output(ctx, goCommand("generate", "./...").with("CGO_ENABLED=0"))
			return "", err
		}},
		{"public API golden files", 5 * time.Minute, func(ctx context.Context) (string, error) {
			_, err := r.output(ctx, goCommand("test", "./internal/archtest", "-run", "TestPublicAPI", "-update").with("CGO_ENABLED=0"))
			return "", err
		}},
	}, nil
}

// modules are the folders with a go.mod, the root's "." first. Those below are
// modules of their own to keep what they depend on from users of the root's.
func (r *runner) modules() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(r.root, "*", "go.mod"))
	if err != nil {
		return nil, err
	}
	dirs := []string{"."}
	for _, path := range found {
		dirs = append(dirs, filepath.Base(filepath.Dir(path)))
	}
	return dirs, nil
}

func inModule(name, dir string) string {
	if dir == "." {
		return name
	}
	return name + " in " + dir
}

func (r *runner) binary() step {
	return step{"build bin/xmtp", 10 * time.Minute, func(ctx context.Context) (string, error) {
		target := filepath.Join("bin", "xmtp"+exe)
		_, err := r.output(ctx, goCommand("build", "-o", target, "./cmd/xmtp").with("CGO_ENABLED=0"))
		return target, err
	}}
}

func (r *runner) buildFor(platform string) step {
	goos, goarch, _ := strings.Cut(platform, "/")
	return step{"build for " + platform, 10 * time.Minute, func(ctx context.Context) (string, error) {
		_, err := r.output(ctx, goCommand("build", "./...").with("CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+goarch))
		return "without cgo", err
	}}
}

func (r *runner) gofmt(ctx context.Context) (string, error) {
	var wrong []string
	count := 0
	err := r.sources(r.root, func(path string) error {
		if filepath.Ext(path) != ".go" {
			return nil
		}
		count++
		have, err := os.ReadFile(filepath.Join(r.root, path))
		if err != nil {
			return err
		}
		want, err := format.Source(have)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !bytes.Equal(have, want) {
			wrong = append(wrong, path)
		}
		return ctx.Err()
	})
	if err == nil && len(wrong) > 0 {
		err = fmt.Errorf("not formatted: gofmt -w %s", strings.Join(wrong, " "))
	}
	return fmt.Sprintf("%d files", count), err
}

func (r *runner) vet(dir string) step {
	return step{inModule("go vet", dir), 10 * time.Minute, func(ctx context.Context) (string, error) {
		_, err := r.output(ctx, goCommand("vet", "./...").in(dir).with("CGO_ENABLED=0"))
		return "", err
	}}
}

// staticcheck runs the version that go.mod pins; modules below don't pin their own.
func (r *runner) staticcheck(dir string) step {
	return step{inModule("staticcheck", dir), 10 * time.Minute, func(ctx context.Context) (string, error) {
		tmp, err := os.MkdirTemp("", "task-")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(tmp)
		program := filepath.Join(tmp, "staticcheck"+exe)
		build := goCommand("build", "-o", program, "honnef.co/go/tools/cmd/staticcheck").with("CGO_ENABLED=0")
		if _, err := r.output(ctx, build); err != nil {
			return "", err
		}
		_, err = r.output(ctx, command{args: []string{program, "./..."}}.in(dir).with("CGO_ENABLED=0"))
		return "", err
	}}
}

// generatedIsCurrent generates in a copy, so that the tree stays as it is, and compares.
func (r *runner) generatedIsCurrent(ctx context.Context) (string, error) {
	tmp, err := os.MkdirTemp("", "task-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	before, err := r.contents(r.root)
	if err != nil {
		return "", err
	}
	for path, content := range before {
		target := filepath.Join(tmp, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return "", err
		}
	}
	if _, err := r.output(ctx, goCommand("generate", "./...").in(tmp).with("CGO_ENABLED=0")); err != nil {
		return "", err
	}
	after, err := r.contents(tmp)
	if err != nil {
		return "", err
	}
	if changed := differing(before, after); len(changed) > 0 {
		return "", fmt.Errorf("not current: %s\nrun: go run ./internal/task generate", strings.Join(changed, ", "))
	}
	return "", nil
}

func (r *runner) contents(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := r.sources(dir, func(path string) error {
		content, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = content
		return err
	})
	return files, err
}

func differing(before, after map[string][]byte) []string {
	var paths []string
	for path, content := range before {
		if now, found := after[path]; !found || !bytes.Equal(now, content) {
			paths = append(paths, path)
		}
	}
	for path := range after {
		if _, found := before[path]; !found {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// sources calls each with the path, below dir, of each file that belongs to the
// repository, with the modules below it, rather than to what was installed or built in it.
func (r *runner) sources(dir string, each func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			if !entry.Type().IsRegular() {
				return nil
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			return each(rel)
		}
		if path == dir {
			return nil
		}
		if name := entry.Name(); name == "node_modules" || name == "bin" || strings.HasPrefix(name, ".") {
			return fs.SkipDir
		}
		return nil
	})
}

func (r *runner) plainTests(limit time.Duration) step {
	return step{stepPlain, limit, func(ctx context.Context) (string, error) {
		args := append([]string{"test", "-json", "-vet=off", "-timeout", limit.String(), "-run", withoutRace}, packagesWithoutRace...)
		return r.goTest(ctx, r.longTier(goCommand(args...).with("CGO_ENABLED=0")))
	}}
}

// longTier has tests do all of what they can in the long tier.
func (r *runner) longTier(c command) command {
	if !r.proof {
		return c
	}
	c.args = slices.Insert(slices.Clone(c.args), 2, "-count=1")
	return c.with("XMTP_PROOF=1")
}

// unitTests runs the module's other tests, with the race detector where there is one.
func (r *runner) unitTests(limit time.Duration) step {
	return step{stepTests, limit, func(ctx context.Context) (string, error) {
		args := []string{"test", "-json", "-vet=off", "-timeout", limit.String(), "-skip", withoutRace}
		env := []string{"CGO_ENABLED=0"}
		note := ""
		// The race detector's runtime is C on most systems. What is built
		// into the binary stays without cgo.
		if _, err := r.output(ctx, goCommand("build", "-race", "net", "os/user").with("CGO_ENABLED=1")); err == nil {
			args, env, note = append(args, "-race"), []string{"CGO_ENABLED=1"}, ", race detector on"
		} else if r.ci {
			return "", fmt.Errorf("the race detector needs a C compiler (gcc and libc6-dev): %w", err)
		} else {
			note = ", race detector skipped: it needs a C compiler"
		}
		counted, err := r.goTest(ctx, r.longTier(goCommand(append(args, "./...")...).with(env...)))
		return counted + note, err
	}}
}

// officialClients runs the tests that drive the official SDKs on Node.js.
func (r *runner) officialClients(limit time.Duration) step {
	return step{stepOfficial, limit, func(ctx context.Context) (string, error) {
		for _, program := range []string{"node", "npm"} {
			if _, err := exec.LookPath(program); err != nil {
				if r.ci {
					return "", err
				}
				return "", skip(program + " is not installed: Node.js 20 or newer is needed; nothing about official clients was proven")
			}
		}
		c := goCommand("test", "-json", "-vet=off", "-count=1", "-timeout", limit.String(), "./...").in("interop").with("CGO_ENABLED=0")
		return r.goTest(ctx, r.longTier(c))
	}}
}

func (r *runner) benchmarks() step {
	return step{"benchmarks", 2 * time.Hour, func(ctx context.Context) (string, error) {
		c := goCommand("test", "-vet=off", "-run", "^$", "-bench", ".", "-benchmem", "./...").with("CGO_ENABLED=0")
		return "", r.lines(ctx, c, func(line string) {
			if !strings.Contains(line, "no test files") {
				fmt.Fprintln(r.out, line)
			}
		})
	}}
}

// speed measures a node beside a bare gRPC server, or a client beside the official one.
func (r *runner) speed(name string, flags ...string) step {
	return step{name, time.Hour, func(ctx context.Context) (string, error) {
		return "", r.lines(ctx, goCommand(append([]string{"run", "./bench"}, flags...)...).with("CGO_ENABLED=0"), func(line string) {
			fmt.Fprintln(r.out, line)
		})
	}}
}

func (r *runner) vulnerabilities() step {
	return step{"govulncheck", 15 * time.Minute, func(ctx context.Context) (string, error) {
		text, err := r.output(ctx, goCommand("tool", "govulncheck", "./...").with("CGO_ENABLED=0"))
		if err != nil && unreachable(text) {
			return "", errors.New("nothing was checked: the vulnerability database can't be reached from here; run it on a machine with access to vuln.go.dev\n" + clip(text, 6))
		}
		return "", err
	}}
}

// unreachable tells a failure to get at the database from one that found something.
func unreachable(text string) bool {
	return strings.Contains(text, "vuln.go.dev") && !strings.Contains(text, "Vulnerability #")
}
