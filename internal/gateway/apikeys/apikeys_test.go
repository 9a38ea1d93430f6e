package apikeys_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sumunio/sumun/internal/apikey"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// registry knows some keys, counts questions, and may be down or slow.
type registry struct {
	known sync.Map // text -> struct{}
	asked atomic.Int64
	down  atomic.Bool
	slow  atomic.Bool // until the question is given up
}

func (r *registry) Exchange(ctx context.Context, key apikey.Key) (apikeys.Token, error) {
	n := r.asked.Add(1)
	if r.slow.Load() {
		<-ctx.Done()
		return apikeys.Token{}, ctx.Err()
	}
	if r.down.Load() {
		return apikeys.Token{}, errors.New("connection refused")
	}
	if _, there := r.known.Load(key.Reveal()); !there {
		return apikeys.Token{}, apikeys.ErrInvalid
	}
	return apikeys.Token{Text: fmt.Sprintf("token-%d", n), Life: 15 * time.Minute}, nil
}

func (r *registry) give() apikey.Key {
	key := apikey.New()
	r.known.Store(key.Reveal(), struct{}{})
	return key
}

var home = netip.MustParseAddr("192.0.2.1")

func setup(t *testing.T, r apikeys.Exchanger) *apikeys.Keys {
	t.Helper()
	k, err := apikeys.New(apikeys.Deps{Exchanger: r, Limiter: ratelimit.NewMemory(time.Now), Clock: time.Now, Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A thousand programs that start with one key are one question to the identity module, and a known key is none.
func TestOneQuestion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{}
		k, key := setup(t, r), r.give()
		for range 3 {
			var group sync.WaitGroup
			for range 1000 {
				group.Go(func() {
					if token, err := k.Token(t.Context(), key, home); token != "token-1" || err != nil {
						t.Errorf("%q, %v", token, err)
					}
				})
			}
			group.Wait()
			time.Sleep(2 * time.Minute) // of the bubble
		}
		k.Wait()
		if n := r.asked.Load(); n != 1 {
			t.Errorf("%d questions", n)
		}
	})
}

// A caller who gives up takes nobody along who waits for the same answer.
func TestWhoLeavesTakesNobodyAlong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		gate := &gated{open: make(chan struct{})}
		k, key := setup(t, gate), gate.give()
		hasty, leave := context.WithCancel(t.Context())
		left, stayed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := k.Token(hasty, key, home); left <- err }()
		synctest.Wait()
		go func() { _, err := k.Token(t.Context(), key, home); stayed <- err }()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left: %v", err)
		}
		close(gate.open)
		if err := <-stayed; err != nil {
			t.Errorf("who stayed: %v", err)
		}
	})
}

type gated struct {
	registry
	open chan struct{}
}

func (g *gated) Exchange(ctx context.Context, key apikey.Key) (apikeys.Token, error) {
	<-g.open
	return g.registry.Exchange(ctx, key)
}

// While the identity module is down, known keys go on working until their token expires, without waiting, and it is not flooded.
func TestIdentityDown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{}
		k, key := setup(t, r), r.give()
		if _, err := k.Token(t.Context(), key, home); err != nil {
			t.Fatal(err)
		}
		r.slow.Store(true)
		began := time.Now()
		for time.Since(began) < 15*time.Minute {
			at := time.Now()
			if token, err := k.Token(t.Context(), key, home); token != "token-1" || err != nil || time.Since(at) > 0 {
				t.Fatalf("after %v: %q, %v, waited %v", at.Sub(began), token, err, time.Since(at))
			}
			time.Sleep(100 * time.Millisecond)
		}
		k.Wait()
		if n := r.asked.Load(); n < 5 || n > 62 { // the last five minutes, at most every five seconds
			t.Errorf("%d questions", n)
		}
		if _, err := k.Token(t.Context(), key, home); !errors.Is(err, apikeys.ErrUnavailable) {
			t.Errorf("its token has expired: %v", err)
		}
		r.slow.Store(false)
		if _, err := k.Token(t.Context(), key, home); err != nil {
			t.Errorf("the identity module is back: %v", err)
		}
	})
}

// A key gets a new token before the old one expires, and a key that was revoked meanwhile is refused from then on.
func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{}
		k, key := setup(t, r), r.give()
		token := func() string {
			text, err := k.Token(t.Context(), key, home)
			if err != nil {
				t.Fatal(err)
			}
			k.Wait()
			return text
		}
		token()
		time.Sleep(11 * time.Minute)
		if a, b := token(), token(); a != "token-1" || b != "token-2" {
			t.Errorf("tokens %s and %s", a, b)
		}
		k.Forget(key, "token-1") // has been replaced already
		if again := token(); again != "token-2" {
			t.Errorf("after a late Forget %s", again)
		}
		k.Forget(key, "token-2")
		if again := token(); again != "token-2" {
			t.Errorf("a token that has only just replaced another is replaced by %s", again)
		}
		time.Sleep(time.Second)
		k.Forget(key, "token-2")
		if again := token(); again != "token-3" {
			t.Errorf("after Forget %s", again)
		}
		r.known.Clear()
		time.Sleep(11 * time.Minute)
		token() // and finds out
		if _, err := k.Token(t.Context(), key, home); !errors.Is(err, apikeys.ErrInvalid) {
			t.Errorf("revoked: %v", err)
		}
	})
}

// Who tries wrong keys is a bounded number of questions; who has a good one in the same network goes on, and so do all others.
func TestWrongKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &registry{}
		k, good, wrong := setup(t, r), r.give(), apikey.New()
		if _, err := k.Token(t.Context(), good, home); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if _, err := k.Token(t.Context(), wrong, home); !errors.Is(err, apikeys.ErrInvalid) {
				t.Fatal(err)
			}
		}
		if n := r.asked.Load(); n != 2 {
			t.Errorf("one wrong key is %d questions", n-1)
		}
		limited := 0
		for range 200 {
			if _, err := k.Token(t.Context(), apikey.New(), home); errors.Is(err, apikeys.ErrTooMany) {
				limited++
			}
		}
		if n := r.asked.Load(); n > 40 || limited < 160 {
			t.Errorf("200 wrong keys are %d questions; %d were refused", n, limited)
		}
		if _, err := k.Token(t.Context(), good, home); err != nil {
			t.Errorf("a known key from there: %v", err)
		}
		if _, err := k.Token(t.Context(), r.give(), netip.MustParseAddr("192.0.2.2")); err != nil {
			t.Errorf("another key from elsewhere: %v", err)
		}
		time.Sleep(time.Minute)
		if _, err := k.Token(t.Context(), r.give(), home); err != nil {
			t.Errorf("a minute later: %v", err)
		}
	})
}

// An identity module that says something else than yes or no has said nothing about the key: who shows it must not be told that it is wrong.
func TestRemoteAnswers(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		status int
		err    error
	}{
		`{"access_token":"a.b-c_d","token_type":"Bearer","expires_in":900}`:   {200, nil},
		`{"error":"invalid_request"}`:                                         {400, apikeys.ErrInvalid},
		`{"error":"unauthorized_client"}`:                                     {400, apikeys.ErrUnavailable},
		`{"error":"invalid_client"}`:                                          {401, apikeys.ErrUnavailable},
		`{"error":"temporarily_unavailable"}`:                                 {503, apikeys.ErrUnavailable},
		`<html>`:                                                              {400, apikeys.ErrUnavailable},
		`{"access_token":"a","token_type":"Bearer"}`:                          {200, apikeys.ErrUnavailable},
		`{"access_token":"a","token_type":"DPoP","expires_in":900}`:           {200, apikeys.ErrUnavailable},
		`{"access_token":"a\nb","token_type":"Bearer","expires_in":900}`:      {200, apikeys.ErrUnavailable},
		`{"access_token":"elsewhere","token_type":"Bearer","expires_in":900}`: {307, apikeys.ErrUnavailable},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if id, secret, _ := r.BasicAuth(); id != "gateway" || secret != "x%2Fy" || r.URL.RawQuery != "" {
				t.Errorf("asked as %q %q, %s", id, secret, r.URL)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(want.status)
			fmt.Fprint(w, body)
		}))
		t.Cleanup(s.Close)
		k := setup(t, apikeys.NewRemote(s.URL+"/oauth/token", "gateway", "x/y"))
		if _, err := k.Token(t.Context(), apikey.New(), home); !errors.Is(err, want.err) {
			t.Errorf("%d %s: %v", want.status, body, err)
		}
	}
}

// What a key costs a request that asks nobody: reading it, its hash, and finding the token.
func BenchmarkKnownKey(b *testing.B) {
	r := &registry{}
	k, err := apikeys.New(apikeys.Deps{Exchanger: r, Clock: time.Now, Metrics: prometheus.NewRegistry()})
	if err != nil {
		b.Fatal(err)
	}
	text := r.give().Reveal()
	b.ReportAllocs()
	for b.Loop() {
		key, err := apikey.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := k.Token(b.Context(), key, home); err != nil {
			b.Fatal(err)
		}
	}
}
