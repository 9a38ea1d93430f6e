//go:build linux && !386

package socket

import (
	"syscall"
	"unsafe"
)

const direct = true

// Read reads what has arrived on a socket that does not block, into p, which is not empty, and no more than 64 KiB. 0 is the end of
// the stream; EAGAIN says that nothing is there.
func Read(fd uintptr, p []byte) (int, error) {
	p = p[:min(len(p), most)]
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != syscall.EINTR {
			return result(n, e)
		}
	}
}

// Write writes as much as a socket that does not block has room for, and no more than 64 KiB.
func Write(fd uintptr, p []byte) (int, error) {
	p = p[:min(len(p), most)]
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		if e != syscall.EINTR {
			return result(n, e)
		}
	}
}

// Peek is Read that leaves there what it reads.
func Peek(fd uintptr, p []byte) (int, error) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if e != syscall.EINTR {
			return result(n, e)
		}
	}
}

func result(n uintptr, e syscall.Errno) (int, error) {
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}
