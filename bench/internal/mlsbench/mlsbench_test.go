package mlsbench

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mute is a library that can't do all.
type mute struct{ Group }

func (mute) Commit() ([]byte, error) { return nil, ErrUnsupported }

type muteClient struct{ Client }

func (c muteClient) Create() (Group, error) {
	g, err := c.Client.Create()
	return mute{g}, err
}

// TestRun: all operations are measured for each library, and what one lacks is left out.
func TestRun(t *testing.T) {
	ours := Ours()
	other := Library{Name: "other", NewClient: func(name string) (Client, error) {
		c, err := ours.NewClient(name)
		return muteClient{c}, err
	}}
	var out strings.Builder
	if err := Run(&out, []Library{ours, other}, Options{Members: []int{40}, Rounds: 1, Messages: 4}); err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		found := false
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "| "+row+" |") {
				found = true
				unsupported := strings.Contains(line, "–")
				if want := row == "commit" || row == "process it"; unsupported != want {
					t.Error(line)
				}
			}
		}
		if !found {
			t.Errorf("no row %q", row)
		}
	}
	broken := Library{Name: "broken", NewClient: func(string) (Client, error) { return nil, errors.New("broken") }}
	if err := Run(&out, []Library{broken}, Options{Members: []int{3}, Rounds: 1}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a library that fails: %v", err)
	}
}

// TestSpent: of a library in another process counts what it says, not what is seen here.
func TestSpent(t *testing.T) {
	ours := Ours()
	other := Library{Name: "other", NewClient: ours.NewClient}
	var took time.Duration
	var allocated uint64
	other.Spent = func() (time.Duration, uint64) {
		took, allocated = took+3*time.Second, allocated+7
		return took, allocated
	}
	var out strings.Builder
	if err := Run(&out, []Library{ours, other}, Options{Members: []int{200}, Rounds: 1, Messages: 1}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{`\| join by it \| [^|]* \| 3 s \|`, `\| commit: memory allocated \| [^|]* \| 7 B \|`} {
		if !regexp.MustCompile(row).MatchString(out.String()) {
			t.Errorf("no row %s in\n%s", row, out.String())
		}
	}
}
