package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
)

var snapshotKey = bytes.Repeat([]byte("k"), 32)

// world is an issuer whose keys and feed can be taken away.
type world struct {
	down  atomic.Bool
	keys  *remote
	feeds *script
}

func newWorld(t *testing.T) *world {
	w := &world{keys: &remote{body: document(t, publicJWK(t, auth.ES256, auth.ES256))}}
	w.feeds = &script{serve: func(_ int, r *http.Request, out io.Writer) (int, http.Header) {
		if r.Header.Get("Last-Event-ID") != "1.aa" {
			_, _ = io.WriteString(out, reset+revocations("1.aa", entryLine(auth.RevokeSession, "ended", time.Now().Add(time.Hour))))
		}
		_, _ = io.WriteString(out, current("1.aa", 0))
		for !w.down.Load() {
			time.Sleep(time.Second)
			if _, err := io.WriteString(out, current("1.aa", 0)); err != nil {
				break
			}
		}
		return 200, nil
	}}
	return w
}

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case w.down.Load():
		return nil, errors.New("connection refused")
	case strings.HasSuffix(r.URL.Path, "/revocations"):
		return w.feeds.RoundTrip(r)
	case strings.HasSuffix(r.URL.Path, "jwks.json"):
		return w.keys.RoundTrip(r)
	}
	return answerOf(r, http.StatusNotFound, nil, http.NoBody), nil
}

func (w *world) verifier(t *testing.T, path string, change func(*auth.Config)) *auth.Verifier {
	t.Helper()
	cfg := auth.Config{
		Issuer: issuer, Audience: audience, Credentials: static("service-token"), Client: &http.Client{Transport: w},
		Snapshot: auth.SnapshotConfig{Path: path, Key: snapshotKey}, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	v, err := auth.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// live runs a verifier for a while, as a service does.
func live(t *testing.T, v *auth.Verifier, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := v.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func lively(more map[string]any) token {
	claims := map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Unix() + 60}
	for name, value := range more {
		claims[name] = value
	}
	return token{claims: claims}
}

// Promise one at its hardest: the service itself starts while the issuer is down, and still refuses what was revoked.
func TestSnapshotStartsWithoutTheIssuer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "auth.snapshot")
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Hour) })
		w := newWorld(t)
		live(t, w.verifier(t, path, nil), 90*time.Second)
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("snapshot: %v, %v", info, err)
		}
		w.down.Store(true)
		time.Sleep(10 * time.Minute)

		without := w.verifier(t, "", func(c *auth.Config) { c.Snapshot = auth.SnapshotConfig{} })
		if err := without.Load(t.Context()); err == nil {
			t.Error("keys out of nowhere")
		}
		v := w.verifier(t, path, nil)
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Verify(t.Context(), lively(nil).sign(t)); err != nil {
			t.Errorf("a good token: %v", err)
		}
		if _, err := v.Verify(t.Context(), lively(map[string]any{"sid": "ended"}).sign(t)); !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("a revoked session: %v", err)
		}
		if age := v.Staleness(); age < 10*time.Minute || age > 11*time.Minute {
			t.Errorf("the snapshot says that it is %v old", age)
		}
		if err := v.Fresh(); !errors.Is(err, auth.ErrStale) {
			t.Errorf("critical: %v", err)
		}

		w.down.Store(false)
		start(t, v)
		time.Sleep(30 * time.Second)
		if err := v.Fresh(); err != nil {
			t.Errorf("the issuer is back: %v", err)
		}
		if last := w.feeds.positions[len(w.feeds.positions)-1]; last != "1.aa" {
			t.Errorf("it went on from %q", last)
		}
	})
}

// A file that somebody else wrote, or that was damaged, must not choose whose tokens are good.
func TestSnapshotNotUsed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "auth.snapshot")
	var good []byte
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Hour) })
		w := newWorld(t)
		live(t, w.verifier(t, path, nil), 5*time.Second)
		var err error
		if good, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	})
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 1
		return b
	}
	for name, row := range map[string]struct {
		content []byte
		change  func(*auth.Config)
		after   time.Duration
		want    error
	}{
		"good":           {good, nil, 0, nil},
		"empty":          {nil, nil, 0, auth.ErrSnapshotForged},
		"cut short":      {good[:len(good)/2], nil, 0, auth.ErrSnapshotForged},
		"longer":         {append(bytes.Clone(good), ' '), nil, 0, auth.ErrSnapshotForged},
		"another format": {flip(5), nil, 0, auth.ErrSnapshotForged},
		"another sum":    {flip(30), nil, 0, auth.ErrSnapshotForged},
		"another body":   {flip(len(good) - 20), nil, 0, auth.ErrSnapshotForged},
		"another key":    {good, func(c *auth.Config) { c.Snapshot.Key = bytes.Repeat([]byte("x"), 32) }, 0, auth.ErrSnapshotForged},
		"another issuer": {good, func(c *auth.Config) { c.Issuer = "https://other.example" }, 0, auth.ErrSnapshotForeign},
		"too old":        {good, nil, 25 * time.Hour, auth.ErrSnapshotAge},
		"too old for us": {good, func(c *auth.Config) { c.Snapshot.MaxAge = time.Hour }, 2 * time.Hour, auth.ErrSnapshotAge},
		"in the future":  {good, func(c *auth.Config) { c.Clock = func() time.Time { return time.Now().Add(-time.Hour) } }, 0, auth.ErrSnapshotAge},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "auth.snapshot")
			if err := os.WriteFile(file, row.content, 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(row.after)
				w := newWorld(t)
				w.down.Store(true)
				v := w.verifier(t, file, row.change)
				if err := auth.ReadSnapshot(v); !errors.Is(err, row.want) {
					t.Errorf("read: %v, want %v", err, row.want)
				}
				if err := v.Load(t.Context()); (err == nil) != (row.want == nil) {
					t.Errorf("load: %v", err)
				}
			})
		})
	}
}

// A crash in the middle of writing leaves the old file, and a folder that is full or gone does not end the service.
func TestSnapshotIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	path := filepath.Join(folder, "auth.snapshot")
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(2 * time.Hour) })
		w := newWorld(t)
		live(t, w.verifier(t, path, func(c *auth.Config) { c.Snapshot.Every = time.Second }), 30*time.Second)
		left, err := filepath.Glob(filepath.Join(folder, "*"))
		if err != nil || len(left) != 1 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		var log bytes.Buffer
		gone := w.verifier(t, filepath.Join(folder, "gone", "auth.snapshot"), func(c *auth.Config) {
			c.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		live(t, gone, 10*time.Second)
		if !strings.Contains(log.String(), "level=ERROR msg=snapshot_not_written") {
			t.Errorf("nobody was told that there is no snapshot: %s", &log)
		}
	})
}

// FuzzSnapshot: no file is believed that this key has not written, and none ends the process.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte("sumun-auth-snapshot-1\n"))
	f.Add([]byte("sumun-auth-snapshot-1\n" + strings.Repeat("0", 32) + `{"issuer":"https://id.example"}`))
	v, err := auth.New(auth.Config{
		Issuer: issuer, Snapshot: auth.SnapshotConfig{Path: "unused", Key: snapshotKey}, Credentials: static("x"),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := auth.ParseSnapshot(v, content); !errors.Is(err, auth.ErrSnapshotForged) {
			t.Errorf("believed: %v", err)
		}
		_ = auth.RestoreSnapshot(v, content) // as if the key were known: an error at most
	})
}

// A service that is killed a moment after a sign-out, and starts again while the issuer is down, must not let the session in again.
func TestRevocationIsInTheSnapshotSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) })
		w := newWorld(t)
		w.feeds.serve = func(_ int, r *http.Request, out io.Writer) (int, http.Header) {
			_, _ = io.WriteString(out, reset+revocations("1.aa", entryLine(auth.RevokeSession, "ended", time.Now().Add(time.Hour)))+current("1.aa", 0))
			for range 10 {
				time.Sleep(time.Second)
				_, _ = io.WriteString(out, current("1.aa", 0))
			}
			_, _ = io.WriteString(out, revocations("2.aa", entryLine(auth.RevokeSession, "later", time.Now().Add(time.Hour)))+current("2.aa", 0))
			<-r.Context().Done()
			return 200, nil
		}
		path := filepath.Join(t.TempDir(), "snapshot")
		v := w.verifier(t, path, nil)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- v.Run(ctx) }()
		time.Sleep(12 * time.Second)
		text, err := os.ReadFile(path)
		id := auth.RevocationHash(auth.RevokeSession, "later")
		if err != nil || !bytes.Contains(text, []byte(base64.RawURLEncoding.EncodeToString(id[:]))) {
			t.Errorf("two seconds after the sign-out it is not in the snapshot: %v", err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
