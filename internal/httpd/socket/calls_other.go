//go:build !unix

package socket

import "syscall"

const direct = false

// Read is not for this system.
func Read(uintptr, []byte) (int, error) { return 0, syscall.EINVAL }

// Write is not for this system.
func Write(uintptr, []byte) (int, error) { return 0, syscall.EINVAL }
