package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/go-xmtp/go-xmtp/bench/internal/mlsbench"
)

// rustLibraries are what the program in rust/ can be, and how they are called in tables.
var rustLibraries = []struct{ argument, name string }{
	{"mls-rs", "mls-rs, AWS-LC"},
	{"openmls", "OpenMLS, RustCrypto"},
	{"openmls-libcrux", "OpenMLS, libcrux"},
}

// rust starts a library in Rust. The program ends with this one, whose pipes it reads.
func rust(program, argument, name string) (mlsbench.Library, error) {
	cmd := exec.Command(program, argument)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return mlsbench.Library{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return mlsbench.Library{}, err
	}
	if err := cmd.Start(); err != nil {
		return mlsbench.Library{}, err
	}
	p := &rustProgram{in: bufio.NewWriter(in), out: bufio.NewReader(out)}
	return mlsbench.Library{
		Name: name,
		NewClient: func(name string) (mlsbench.Client, error) {
			p.members++
			m := rustMember{p, p.members}
			_, err := m.ask('n', []byte(name))
			return m, err
		},
		Spent: func() (time.Duration, uint64) { return p.took, p.allocated },
	}, nil
}

type rustProgram struct {
	in        *bufio.Writer
	out       *bufio.Reader
	members   uint32
	took      time.Duration // by all operations
	allocated uint64
}

// rustMember is a client and the group that it made or joined last.
type rustMember struct {
	program *rustProgram
	number  uint32
}

// ask has an operation done. rust/src/main.rs says what is sent.
func (m rustMember) ask(operation byte, arguments ...[]byte) ([]byte, error) {
	p := m.program
	request := binary.LittleEndian.AppendUint32([]byte{operation}, m.number)
	request = binary.LittleEndian.AppendUint32(request, uint32(len(arguments)))
	for _, a := range arguments {
		request = binary.LittleEndian.AppendUint32(request, uint32(len(a)))
		request = append(request, a...)
	}
	if _, err := p.in.Write(request); err != nil {
		return nil, err
	}
	if err := p.in.Flush(); err != nil {
		return nil, err
	}
	var answer struct {
		Failed          uint8
		Took, Allocated uint64
		Length          uint32
	}
	if err := binary.Read(p.out, binary.LittleEndian, &answer); err != nil {
		return nil, fmt.Errorf("the program in Rust: %w", err)
	}
	made := make([]byte, answer.Length)
	if _, err := io.ReadFull(p.out, made); err != nil {
		return nil, err
	}
	p.took += time.Duration(answer.Took)
	p.allocated += answer.Allocated
	if answer.Failed != 0 {
		return nil, errors.New(string(made))
	}
	return made, nil
}

func (m rustMember) KeyPackage() ([]byte, error) { return m.ask('k') }

func (m rustMember) Create() (mlsbench.Group, error) {
	_, err := m.ask('c')
	return m, err
}

func (m rustMember) Join(welcome []byte) (mlsbench.Group, error) {
	_, err := m.ask('j', welcome)
	return m, err
}

func (m rustMember) Add(keyPackages [][]byte) ([]byte, error) { return m.ask('a', keyPackages...) }
func (m rustMember) Commit() ([]byte, error)                  { return m.ask('u') }

func (m rustMember) ProcessCommit(commit []byte) error {
	_, err := m.ask('p', commit)
	return err
}

func (m rustMember) Encrypt(text []byte) ([]byte, error)    { return m.ask('e', text) }
func (m rustMember) Decrypt(message []byte) ([]byte, error) { return m.ask('d', message) }
