package e2e_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// smallDisk mounts a disk of the given size ("4m") until the test ends. That takes root; CI has it.
func smallDisk(t *testing.T, size string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("mount a small disk: %v", err)
		}
		t.Skipf("a full disk takes root to make: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return folder
}

func resize(t *testing.T, folder, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
		t.Fatalf("resize a small disk: %v", err)
	}
}

// fill writes until nothing more fits, and returns the file that takes the space.
func fill(t *testing.T, folder string) (path string) {
	t.Helper()
	path = filepath.Join(folder, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return path
}

// A start on a full disk is one clear line. With room again, the same command starts.
func TestStartOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"4k", "64k", "256k"} { // no room for the key, the first table, all tables
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			folder := smallDisk(t, size)
			st := store{args: []string{"--data", filepath.Join(folder, "data")}}
			r := st.command(t, "", append([]string{"serve", "--log-level", "error"}, freePorts...)...)
			wantOneLine(t, size, r, 1, "space")
			resize(t, folder, "16m")
			s := st.serve(t)
			s.mustRegister(t, "owner@example.com")
			s.stop(t) // the disk is unmounted before other clean-ups
		})
	}
}

// A disk that fills up under a running server: what writes is refused with a reason and a time to come again, nobody is
// signed out, what only reads goes on, and with room again all is well without a restart.
func TestDiskFillsUp(t *testing.T) {
	t.Parallel()
	folder := smallDisk(t, "8m")
	st := store{args: []string{"--data", filepath.Join(folder, "data")}}
	st.addUser(t, "owner@example.com")
	s := st.serve(t, "--limits", "off")
	defer s.stop(t)
	s.failures = true // a full disk is something that a human must act on
	got := s.signIn(t, "owner@example.com")
	filler := fill(t, folder)
	full := false
	for range 500 { // the log still has some room of its own
		a := s.send(t, "POST /v1/users", map[string]string{"email": "someone@example.com"})
		if full = a.status != 202; full {
			a.wantProblem(t, 503, "database.full")
			break
		}
	}
	if !full {
		t.Fatal("the disk does not fill up")
	}
	for request, body := range map[string]any{
		"POST /v1/users":            map[string]string{"email": "someone@example.com"},
		"POST /v1/sessions/refresh": map[string]string{"refresh_token": got.RefreshToken},
		"DELETE /v1/sessions":       nil,
	} {
		a := s.send(t, request, body, bearer(got.AccessToken)).want(t, 503)
		if a.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", request)
		}
	}
	s.me(t, got.AccessToken)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := eventually(t.Context(), mailPatience, "recovery", func(ctx context.Context) (bool, error) {
		next, err := s.tryRefresh(ctx, got.RefreshToken)
		got = next
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	s.mustRegister(t, "later@example.com")
}

// A folder that has become read-only is named, too.
func TestReadOnlyDataFolder(t *testing.T) {
	t.Parallel()
	folder := smallDisk(t, "16m")
	st := store{args: []string{"--data", filepath.Join(folder, "data")}}
	st.addUser(t, "owner@example.com")
	if err := syscall.Mount("tmpfs", folder, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, "size=16m"); err != nil {
		t.Fatal(err)
	}
	r := st.command(t, "", append([]string{"serve", "--log-level", "error"}, freePorts...)...)
	wantOneLine(t, "read-only", r, 1, folder)
}
