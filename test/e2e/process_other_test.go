//go:build !linux

package e2e_test

import "syscall"

// orphanless has no counterpart here: a child outlives tests that are killed.
func orphanless() *syscall.SysProcAttr { return nil }
