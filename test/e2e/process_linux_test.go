package e2e_test

import "syscall"

// orphanless makes the kernel end a child whose parent has gone, also when the tests themselves are killed.
func orphanless() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
