package sshfront

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck has the kernel acknowledge at once what is read next (tcp(7),
// TCP_QUICKACK; it does not last). OpenSSH keeps Nagle's algorithm on until a
// session opens and would wait twice for an acknowledgement delayed by 40 ms;
// paramiko and others keep it on, and would wait for the end of their input too.
func quickAck(raw syscall.RawConn) {
	// A connection that cannot be set is as fast as before.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	})
}
