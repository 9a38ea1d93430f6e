package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
)

// static is a TokenSource.
type static string

func (s static) Token(context.Context) (string, error) { return string(s), nil }

// script is an issuer's feed without a network, so that synctest can move the time: what the nth connection does.
type script struct {
	mu        sync.Mutex
	positions []string // of the connections so far
	at        []time.Time
	serve     func(n int, r *http.Request, w io.Writer) (status int, header http.Header)
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	n := len(s.positions)
	s.positions = append(s.positions, r.Header.Get("Last-Event-ID"))
	s.at = append(s.at, time.Now())
	s.mu.Unlock()
	read, write := io.Pipe()
	head := make(chan *http.Response, 1)
	go func() {
		w := &headFirst{pipe: write, ok: func() { head <- answerOf(r, 200, nil, read) }}
		status, header := s.serve(n, r, w)
		if !w.sent {
			head <- answerOf(r, status, header, read)
		}
		_ = write.Close()
	}()
	context.AfterFunc(r.Context(), func() { _ = read.CloseWithError(r.Context().Err()) })
	select {
	case res := <-head:
		return res, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// headFirst sends the head of the answer with the first byte of its body.
type headFirst struct {
	pipe *io.PipeWriter
	ok   func()
	sent bool
}

func (w *headFirst) Write(b []byte) (int, error) {
	if !w.sent {
		w.sent = true
		w.ok()
	}
	return w.pipe.Write(b)
}

func answerOf(r *http.Request, status int, header http.Header, body io.ReadCloser) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	if status == 200 && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "text/event-stream; charset=utf-8")
	}
	return &http.Response{StatusCode: status, Header: header, Request: r, Body: body}
}

func (s *script) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.positions)
}

func (s *script) verifier(t *testing.T, change func(*auth.Config)) *auth.Verifier {
	t.Helper()
	v, err := auth.New(following(s, change))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { time.Sleep(2 * time.Hour) }) // whoever serves sees that the client has gone
	return v
}

func following(s *script, change func(*auth.Config)) auth.Config {
	cfg := auth.Config{
		Issuer: issuer, Audience: audience, Keys: newSource(), Credentials: static("service-token"),
		Client: &http.Client{Transport: s}, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return cfg
}

// start runs v until the test ends.
func start(t *testing.T, v *auth.Verifier) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func entryLine(kind auth.RevocationKind, id string, until time.Time) string {
	hash := auth.RevocationHash(kind, id)
	return fmt.Sprintf(`{"kind":%q,"id":%q,"epoch":0,"until":%d}`, kind, b64(hash[:]), until.Unix())
}

func revocations(position string, entries ...string) string {
	return fmt.Sprintf("event: revocations\nid: %s\ndata: {\"entries\":[%s]}\n\n", position, strings.Join(entries, ","))
}

func current(position string, ms int) string {
	return fmt.Sprintf("event: current\nid: %s\ndata: {\"age_ms\":%d}\n\n", position, ms)
}

const reset = "event: reset\ndata: {}\n\n"

// beat goes on saying that nothing is new, until the client goes.
func beat(w io.Writer, position string) {
	for {
		time.Sleep(time.Second)
		if _, err := io.WriteString(w, current(position, 0)); err != nil {
			return
		}
	}
}

func sessionRevoked(v *auth.RevocationSet, id string) bool {
	return v.Revoked(&auth.Claims{SessionID: id})
}

// Promise two, from the issuer's wire to the refusal, over real HTTP with real credentials.
func TestFeedOverHTTP(t *testing.T) {
	t.Parallel()
	issuer := authtest.Serve(t)
	issuer.RevokeSession("before")
	v, err := auth.New(auth.Config{
		Issuer: issuer.Name, Audience: authtest.Audience, Credentials: issuer.Credentials(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), issuer.Token(authtest.WithSession("before"))); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("what was revoked before the start: %v", err)
	}
	if err := v.Fresh(); err != nil {
		t.Error(err)
	}
	start(t, v)
	raw := issuer.Token()
	claims, err := v.Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	v.Watch(claims, func(err error) { refused <- err })
	issuer.RevokeSession(claims.SessionID)
	select {
	case err := <-refused:
		if !errors.Is(err, auth.ErrRevoked) {
			t.Errorf("the watch says %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the revocation did not arrive")
	}
	if _, err := v.Verify(t.Context(), raw); !errors.Is(err, auth.ErrRevoked) {
		t.Errorf("the cached token: %v", err)
	}
}

// A consumer that lost its connection goes on where it was, and knows how old its knowledge is meanwhile.
func TestFeedResumes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{serve: func(n int, _ *http.Request, w io.Writer) (int, http.Header) {
			switch n {
			case 0: // Load
				_, _ = io.WriteString(w, reset+revocations("1.aa", entryLine(auth.RevokeSession, "s1", time.Now().Add(time.Hour)))+current("1.aa", 40))
			case 1, 2, 3: // down
				return http.StatusServiceUnavailable, http.Header{"Retry-After": {"2"}}
			default:
				_, _ = io.WriteString(w, revocations("2.bb", entryLine(auth.RevokeSession, "s2", time.Now().Add(time.Hour)))+current("2.bb", 0))
				beat(w, "2.bb")
			}
			return 200, nil
		}}
		set := auth.NewRevocationSet(nil)
		v := s.verifier(t, func(c *auth.Config) { c.Revocations = set })
		if v.Staleness() != auth.Unknown || v.Fresh() == nil {
			t.Error("a verifier that has read nothing says it is fresh")
		}
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if age := v.Staleness(); age != 40*time.Millisecond {
			t.Errorf("staleness %v, the issuer said 40 ms", age)
		}
		start(t, v)
		time.Sleep(time.Second)
		if age := v.Staleness(); age < time.Second {
			t.Errorf("staleness %v after a second without news", age)
		}
		time.Sleep(20 * time.Second)
		if !sessionRevoked(set, "s1") || !sessionRevoked(set, "s2") || v.Staleness() > time.Second {
			t.Errorf("after the outage: %v, staleness %v", s.positions, v.Staleness())
		}
		for n, want := range []string{"", "1.aa", "1.aa", "1.aa", "1.aa"} {
			if s.positions[n] != want {
				t.Errorf("connection %d asked for %q, not %q", n, s.positions[n], want)
			}
		}
		for n := 2; n < 5; n++ {
			if gap := s.at[n].Sub(s.at[n-1]); gap < 2*time.Second {
				t.Errorf("back after %v although asked to wait 2 s", gap)
			}
		}
	})
}

// The issuer's database was restored: its order is void, and what was revoked stays revoked.
func TestFeedReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		until := time.Now().Add(time.Hour)
		s := &script{serve: func(n int, _ *http.Request, w io.Writer) (int, http.Header) {
			if n == 0 {
				_, _ = io.WriteString(w, reset+revocations("9.aa", entryLine(auth.RevokeSession, "lost", until))+current("9.aa", 0))
				return 200, nil
			}
			_, _ = io.WriteString(w, reset+current("0", 0))
			beat(w, "0")
			return 200, nil
		}}
		set := auth.NewRevocationSet(nil)
		start(t, s.verifier(t, func(c *auth.Config) { c.Revocations = set }))
		time.Sleep(10 * time.Second)
		if s.connections() != 2 || s.positions[1] != "9.aa" || !sessionRevoked(set, "lost") {
			t.Errorf("connections %q, still revoked: %v", s.positions, sessionRevoked(set, "lost"))
		}
	})
}

// An alarm is one alarm, however long the outage; critical routes refuse meanwhile, others go on.
func TestFeedStaleOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var down bool
		var mu sync.Mutex
		s := &script{serve: func(_ int, _ *http.Request, w io.Writer) (int, http.Header) {
			for range 5 {
				mu.Lock()
				stop := down
				mu.Unlock()
				if stop {
					return http.StatusBadGateway, nil
				}
				if _, err := io.WriteString(w, current("0", 0)); err != nil {
					return 200, nil
				}
				time.Sleep(time.Second)
			}
			return 200, nil
		}}
		var told []bool
		v := s.verifier(t, func(c *auth.Config) {
			c.Clock = nil
			c.OnStale = func(stale bool, _ time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, stale)
			}
		})
		start(t, v)
		set := func(b bool) { mu.Lock(); down = b; mu.Unlock() }
		time.Sleep(time.Minute)
		if err := v.Fresh(); err != nil {
			t.Error(err)
		}
		set(true)
		time.Sleep(10 * time.Minute)
		if err := v.Fresh(); !errors.Is(err, auth.ErrStale) {
			t.Errorf("critical: %v", err)
		}
		if n := s.connections(); n > 200 {
			t.Errorf("%d connections: the issuer was hammered", n)
		}
		set(false)
		time.Sleep(time.Minute)
		if err := v.Fresh(); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 2 || !told[0] || told[1] {
			t.Errorf("told %v, want stale and fresh once each", told)
		}
	})
}

// A service that was started while the issuer was down, without a snapshot, has never known what is revoked: that is an alarm too.
func TestFeedNeverRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{serve: func(int, *http.Request, io.Writer) (int, http.Header) { return http.StatusBadGateway, nil }}
		var told []time.Duration
		v := s.verifier(t, func(c *auth.Config) {
			c.OnStale = func(_ bool, age time.Duration) { told = append(told, age) }
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := v.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || told[0] != auth.Unknown {
			t.Errorf("told %v", told)
		}
	})
}

// Other issuers have no feed: their tokens verify, nobody is alarmed, and they are asked seldom.
func TestIssuerWithoutFeed(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{serve: func(int, *http.Request, io.Writer) (int, http.Header) { return status, nil }}
			v := s.verifier(t, func(c *auth.Config) {
				c.OnStale = func(bool, time.Duration) { t.Errorf("%d: an alarm", status) }
			})
			start(t, v)
			time.Sleep(30 * time.Minute)
			claims := map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Unix() + 60}
			if _, err := v.Verify(t.Context(), token{claims: claims}.sign(t)); err != nil {
				t.Errorf("%d: %v", status, err)
			}
			if n := s.connections(); n > 65 || n < 20 {
				t.Errorf("%d: %d connections in half an hour", status, n)
			}
			if v.Staleness() != auth.Unknown || !errors.Is(v.Fresh(), auth.ErrStale) {
				t.Errorf("%d: nobody said that it is fresh, but %v", status, v.Staleness())
			}
		})
	}
}

// A proxy that answers 404 while the issuer is deployed must not cost minutes, once there was a feed.
func TestFeedAbsentForAMoment(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{serve: func(n int, _ *http.Request, w io.Writer) (int, http.Header) {
			if n == 2 || n == 3 {
				return http.StatusNotFound, nil
			}
			_, _ = io.WriteString(w, current("1", 0))
			if n > 3 {
				beat(w, "1")
			}
			return 200, nil
		}}
		v := s.verifier(t, nil)
		start(t, v)
		time.Sleep(10 * time.Second)
		if err := v.Fresh(); err != nil {
			t.Error(err)
		}
	})
}

// What a hostile or broken issuer sends costs bounded memory and time, never counts as fresh, and does not end the process.
func TestFeedHostile(t *testing.T) {
	t.Parallel()
	endless := func(text string) func(io.Writer) {
		return func(w io.Writer) {
			for {
				if _, err := io.WriteString(w, text); err != nil {
					return
				}
			}
		}
	}
	once := func(text string) func(io.Writer) {
		return func(w io.Writer) { _, _ = io.WriteString(w, text) }
	}
	for name, serve := range map[string]func(io.Writer){
		"endless line":    endless(strings.Repeat("x", 4096)),
		"endless event":   endless("data: " + strings.Repeat("x", 100_000) + "\n"),
		"silent":          func(w io.Writer) { _, _ = io.WriteString(w, ": hello\n\n"); time.Sleep(time.Hour) },
		"dribbling":       func(w io.Writer) { slowly(w, strings.Repeat(": still here\n", 1000)) },
		"not JSON":        once("event: current\ndata: nope\n\n"),
		"a short id":      once("event: revocations\nid: 1\ndata: {\"entries\":[{\"kind\":\"session\",\"id\":\"AAAA\",\"until\":99999999999}]}\n\n" + "event: revocations\n"),
		"a long position": once(current(strings.Repeat("9", 200), 0)),
		"cut short":       once("event: current\ndata: {\"age_ms\":0}\n"),
		"a negative age":  once("event: current\ndata: {\"age_ms\":1e99}\n\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &script{serve: func(_ int, _ *http.Request, w io.Writer) (int, http.Header) { serve(w); return 200, nil }}
				v := s.verifier(t, nil)
				start(t, v)
				time.Sleep(time.Minute)
				if v.Staleness() != auth.Unknown {
					t.Errorf("counted as fresh: %v", v.Staleness())
				}
				if n := s.connections(); n < 4 || n > 60 {
					t.Errorf("%d connections in a minute", n)
				}
			})
		})
	}
}

func slowly(w io.Writer, text string) {
	for i := range len(text) {
		time.Sleep(100 * time.Millisecond)
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return
		}
	}
}

// A feed that is larger than allowed is stale, and memory stays what it was.
func TestFeedIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{serve: func(_ int, _ *http.Request, w io.Writer) (int, http.Header) {
			for i := range 100 {
				line := entryLine(auth.RevokeToken, fmt.Sprint(i), time.Now().Add(time.Hour))
				if _, err := io.WriteString(w, revocations(fmt.Sprint(i), line)); err != nil {
					break
				}
			}
			_, _ = io.WriteString(w, current("100", 0))
			return 200, nil
		}}
		v := s.verifier(t, func(c *auth.Config) { c.MaxRevocations = 10 })
		start(t, v)
		time.Sleep(time.Minute)
		if n := v.Stats().Revocations; n != 10 || v.Staleness() != auth.Unknown {
			t.Errorf("%d entries, staleness %v", n, v.Staleness())
		}
	})
}

// Ten thousand services that lost one issuer must not come back in one moment.
func TestFeedComesBackWithJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &script{serve: func(int, *http.Request, io.Writer) (int, http.Header) { return http.StatusBadGateway, nil }}
		for range 50 {
			start(t, s.verifier(t, nil))
		}
		time.Sleep(2 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		var last [10]int // of the last ten seconds, by second
		n := 0
		for _, at := range s.at {
			if age := time.Since(at); age < 10*time.Second {
				last[age/time.Second]++
				n++
			}
		}
		for second, count := range last {
			if count == 0 || count > n/3 {
				t.Errorf("second %d has %d of %d connections: %v", second, count, n, last)
			}
		}
	})
}

// FuzzFeed: whatever the stream says, it is read in bounded memory, and only a whole "current" makes a consumer fresh.
func FuzzFeed(f *testing.F) {
	f.Add([]byte(reset + revocations("1", entryLine(auth.RevokeSession, "s", now.Add(time.Hour))) + current("1", 5)))
	f.Add([]byte("\ufeffevent:current\r\ndata:{}\r\r"))
	f.Add([]byte("data\n\nid: \x00\ndata: {\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		set := auth.NewRevocationSet(func() time.Time { return now })
		body := func(r *http.Request) (*http.Response, error) {
			return answerOf(r, 200, nil, io.NopCloser(strings.NewReader(string(stream)))), nil
		}
		v, err := auth.New(following(nil, func(c *auth.Config) {
			c.Client, c.Revocations = &http.Client{Transport: transport(body)}, set
			c.Clock = func() time.Time { return now }
		}))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v.Staleness() != auth.Unknown && !strings.Contains(string(stream), "current") {
			t.Error("fresh without being told")
		}
		if set.Len() > len(stream)/40 {
			t.Errorf("%d entries out of %d bytes", set.Len(), len(stream))
		}
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
