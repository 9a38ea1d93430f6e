//go:build unix && (!linux || 386)

package socket

import "syscall"

// Elsewhere the system calls themselves are a library's, which the runtime has to know of, or, on a 386, parts of another one.
const direct = false

// Read is the same as on Linux.
func Read(fd uintptr, p []byte) (n int, err error) {
	return again(func() (int, error) { return syscall.Read(int(fd), p[:min(len(p), most)]) })
}

// Write is the same as on Linux.
func Write(fd uintptr, p []byte) (n int, err error) {
	return again(func() (int, error) { return syscall.Write(int(fd), p[:min(len(p), most)]) })
}

// Peek is the same as on Linux.
func Peek(fd uintptr, p []byte) (int, error) {
	return again(func() (int, error) {
		n, _, err := syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return n, err
	})
}

func again(try func() (int, error)) (int, error) {
	for {
		if n, err := try(); err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
