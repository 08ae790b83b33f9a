package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/go-xmtp/go-xmtp/proto/gen/mlsapi"
)

// serveEcho is what this program does when it is started with -echo.
func serveEcho() error {
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(port.Addr())
	return serveEchoOn(port, os.Stdin)
}

// serveEchoOn is the barest gRPC server there is, until its input ends.
func serveEchoOn(port net.Listener, input io.Reader) error {
	zeros := make([]byte, 32<<20)
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Call",
			Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				var request wrapperspb.BytesValue
				if err := decode(&request); err != nil {
					return nil, err
				}
				return wrapperspb.Bytes(zeros[:binary.BigEndian.Uint32(request.Value)]), nil
			},
		}},
	}, nil)
	go func() {
		_, _ = io.Copy(io.Discard, input) // whatever ends it
		server.Stop()
	}()
	return server.Serve(port)
}

// A process is a server that was started, at an address.
type process struct {
	address string
	took    time.Duration // from its start until it answered a call
	command *exec.Cmd
	input   io.Closer
	ended   chan struct{}
}

func (p *process) pid() int { return p.command.Process.Pid }

// stop asks the process to end, and waits.
func (p *process) stop() {
	_ = p.input.Close()
	_ = p.command.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.kill()
	}
}

// kill ends it as a power cut would.
func (p *process) kill() {
	_ = p.command.Process.Signal(syscall.SIGKILL)
	<-p.ended
}

// launch starts a process, of whose output each line is looked at for its address.
func launch(command *exec.Cmd, out func(*exec.Cmd) (io.ReadCloser, error), address func(line string) string) (*process, error) {
	p := &process{command: command, ended: make(chan struct{})}
	lines, err := out(command)
	if err != nil {
		return nil, err
	}
	if p.input, err = command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	found := make(chan string, 1)
	var said []string
	go func() {
		scanner := bufio.NewScanner(lines)
		for scanner.Scan() {
			if len(said) < 20 {
				said = append(said, scanner.Text())
			}
			if a := address(scanner.Text()); a != "" {
				select {
				case found <- a:
				default:
				}
			}
		}
		_ = command.Wait() // how it ends shows in its calls
		close(p.ended)
	}()
	select {
	case p.address = <-found:
		return p, nil
	case <-p.ended:
		return nil, fmt.Errorf("%s ended: %s", filepath.Base(command.Path), strings.Join(said, "\n"))
	case <-time.After(2 * time.Minute):
		p.kill()
		return nil, fmt.Errorf("%s doesn't start", filepath.Base(command.Path))
	}
}

func startEcho(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, self, "-echo")
	command.Stderr = os.Stderr
	return launch(command, (*exec.Cmd).StdoutPipe, func(line string) string { return line })
}

// startNode starts a node on a directory as an operator would, with metrics; without
// a directory it keeps all in memory.
func startNode(ctx context.Context, program, data string, flags ...string) (*process, error) {
	place := []string{"--data", data}
	if data == "" {
		place = []string{"--ephemeral"}
	}
	command := exec.CommandContext(ctx, program, slices.Concat([]string{
		"node", "--listen", "127.0.0.1:0", "--web-listen", "off", "--history-listen", "off",
		"--metrics-listen", "127.0.0.1:0", "--log-format", "json",
	}, place, flags)...)
	begin := time.Now()
	p, err := launch(command, (*exec.Cmd).StderrPipe, func(line string) string {
		var said struct{ Msg, Listen string }
		if json.Unmarshal([]byte(line), &said) != nil || said.Msg != "node started" {
			return ""
		}
		return said.Listen
	})
	if err != nil {
		return nil, err
	}
	conns, err := dial(p.address, 1)
	if err == nil {
		err = errors.Join(conns[0].Invoke(ctx, mlsapi.MlsApi_QueryGroupMessages_FullMethodName, &raw{pageRequest(groupID(0), 0)}, &raw{}), conns.Close())
	}
	p.took = time.Since(begin)
	if err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// build makes the programs that are measured and used, in a folder.
func build(ctx context.Context, folder string, packages ...string) error {
	for _, name := range packages {
		command := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(folder, filepath.Base(name)), name)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", name, err, out)
		}
	}
	return nil
}
