package node

import (
	"log/slog"
	"net"
	"syscall"
	"testing"
)

// One lost probe of TCP's would end an idle connection, so that none are sent.
func TestNoTCPProbes(t *testing.T) {
	port, err := listen(t.Context(), slog.New(slog.DiscardHandler), "Listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	client, err := new(net.Dialer).DialContext(t.Context(), "tcp", port.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := port.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	on := -1
	if err := raw.Control(func(fd uintptr) { on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) }); err != nil {
		t.Fatal(err)
	}
	if err != nil || on != 0 {
		t.Errorf("SO_KEEPALIVE is %d, %v", on, err)
	}
}
