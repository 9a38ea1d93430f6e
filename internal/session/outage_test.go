package session_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/sqldb/sqldbtest"
)

func TestOutages(t *testing.T) {
	onEach(t, []test{
		{"abandoned", testRefreshOfAClientThatLeft},
		{"too late", testEndpointsWithoutTime},
		{"log", testOutagesAreToldInMeasure},
	})
}

// Clients leave all the time. Whoever watches for outages must not be told of one.
func testRefreshOfAClientThatLeft(t *testing.T, db *sqldb.DB) {
	n, _ := alone(t, db, session.DefaultConfig())
	tokens := n.signIn(t, session.Start{}).Tokens
	_, cookie := n.openPage(t, newSubject())
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := n.Refresh(gone, tokens.Refresh, laptop); !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("refresh = %v, want %v", err, context.Canceled)
	}
	if _, err := n.Authenticate(gone, cookie); !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrUnavailable) {
		t.Errorf("authenticate = %v, want %v", err, context.Canceled)
	}
	if abandoned, outage := n.outcomes(t, "abandoned"), n.outcomes(t, "unavailable"); abandoned != 1 || outage != 0 {
		t.Errorf("counted as abandoned %d times, as unavailable %d times", abandoned, outage)
	}
	n.refresh(t, tokens.Refresh)
}

// A store that does not answer in time is an outage at every endpoint, and a sign-out at none.
func testEndpointsWithoutTime(t *testing.T, db *sqldb.DB) {
	n, _ := alone(t, db, session.DefaultConfig())
	h := n.serve(t)
	started := n.signIn(t, session.Start{})
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, endpoint := range []string{
		"POST /v1/sessions/refresh", "GET /v1/sessions", "GET /v1/sessions/" + started.Session.ID,
		"DELETE /v1/sessions/current", "DELETE /v1/sessions", "DELETE /v1/sessions/" + newSubject(),
	} {
		method, path, _ := strings.Cut(endpoint, " ")
		r := httptest.NewRequestWithContext(late, method, path, http.NoBody)
		if method == http.MethodPost {
			r.AddCookie(cookies.RefreshCookie(started.Tokens.Refresh, time.Hour))
		} else {
			r.Header.Set("Authorization", "Bearer "+started.Tokens.Access)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Header().Get("Retry-After") == "" || len(w.Result().Cookies()) != 0 {
			t.Errorf("%s: header = %v, want Retry-After and no cookie", endpoint, w.Header())
		}
		wantProblem(t, w.Result(), session.ErrUnavailable)
	}
	n.refresh(t, started.Tokens.Refresh)
}

// logBook collects a log that others write.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// One poll that fails wakes nobody; an outage does, and then says so now and then instead of four times a second.
func testOutagesAreToldInMeasure(t *testing.T, db *sqldb.DB) {
	own := sqldbtest.Reopen(t, db)
	must(t, own.Close())
	synctest.Test(t, func(t *testing.T) {
		log := &logBook{}
		s, err := session.New(session.DefaultConfig(), session.Deps{
			DB: own, Clock: time.Now, Log: slog.New(slog.NewTextHandler(log, nil)),
		})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		for _, passed := range []struct {
			time             time.Duration
			warnings, errors int
		}{{29 * time.Second, 1, 0}, {5 * time.Second, 1, 1}, {30 * time.Second, 1, 1}, {2 * time.Minute, 1, 3}} {
			time.Sleep(passed.time)
			synctest.Wait()
			warnings, failures := 0, 0
			for line := range strings.Lines(log.String()) {
				if strings.Contains(line, "follow the revocation feed") {
					warnings += strings.Count(line, "level=WARN")
					failures += strings.Count(line, "level=ERROR")
				}
			}
			if warnings != passed.warnings || failures != passed.errors {
				t.Errorf("%d warnings and %d errors, want %d and %d:\n%s", warnings, failures, passed.warnings, passed.errors, log)
			}
		}
		cancel()
		must(t, <-ended)
	})
}

// A query that hangs must not keep the node from hearing of revocations for ever, nor whoever ends a session from an answer.
func TestAFeedThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := session.New(session.DefaultConfig(), session.Deps{Clock: time.Now})
		must(t, err)
		defer s.HoldFeed()()
		began := time.Now()
		err = s.Apply(context.WithoutCancel(t.Context()))
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
			t.Errorf("apply = %v after %v, want the deadline within seconds", err, took)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if err := s.Apply(gone); !errors.Is(err, context.Canceled) {
			t.Errorf("apply for somebody who has gone = %v", err)
		}
	})
}
