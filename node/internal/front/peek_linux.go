package front

import (
	"net"
	"syscall"
)

// peek looks at the first bytes of a TCP connection and leaves them there. gRPC
// can then have the connection itself, for which it needs 32 KiB less while
// nothing comes than for any other kind. It is false for other kinds.
func peek(conn net.Conn) (head []byte, ok bool, err error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, false, nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, true, err
	}
	buffer := make([]byte, len(preface))
	var failure error
	// It is called again, within the deadline, whenever there is more.
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, peekErr := syscall.Recvfrom(int(fd), buffer, syscall.MSG_PEEK)
			switch peekErr {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			head, failure = buffer[:max(n, 0)], peekErr
			return n <= 0 || decided(head)
		}
	})
	if err == nil {
		err = failure
	}
	return head, true, err
}
