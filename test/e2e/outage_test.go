package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// outageVariable says how long identity is down in TestOutage, such as 60s.
const outageVariable = "SUMUN_TEST_OUTAGE"

// Identity is killed while two gateways are under load, and one of those is killed and started again meanwhile: nobody who holds a token
// notices, who had signed out stays out, and once identity is back a sign-out is known to both again.
func TestOutage(t *testing.T) {
	t.Parallel()
	outage := 6 * time.Second
	if text := os.Getenv(outageVariable); text != "" {
		var err error
		if outage, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	st := sqliteStore(t)
	st.split = true
	st.addUser(t, "owner@example.com")
	const snapshot = "SUMUN_GATEWAY_FEED_SNAPSHOT="
	file := filepath.Join(t.TempDir(), "snapshot") // of the second gateway
	one := st.serve(t, append(quick(), "--config", routesFile(t, "", behind(t).URL, shopRoute), snapshot+filepath.Join(t.TempDir(), "snapshot"))...)
	arguments := append(slices.Clone(one.arguments), "--listen", "127.0.0.1:0", snapshot+file)
	two := serve(t, arguments...)
	one.failures, two.failures = true, true // a long outage is an alarm
	living, ended, last := one.signIn(t, "owner@example.com"), one.signIn(t, "owner@example.com"), one.signIn(t, "owner@example.com")
	one.send(t, "DELETE /v1/sessions/current", nil, bearer(ended.AccessToken)).want(t, 204)
	one.refuses(t, ended.AccessToken)
	two.refuses(t, ended.AccessToken)
	id := auth.RevocationHash(auth.RevokeSession, ended.SessionID)
	err := eventually(t.Context(), startPatience, "the snapshot has the sign-out", func(context.Context) (bool, error) {
		text, err := os.ReadFile(file)
		return bytes.Contains(text, []byte(base64.RawURLEncoding.EncodeToString(id[:]))), err
	})
	if err != nil {
		t.Fatal(err)
	}

	first, second := one.keepAsking(t, living.AccessToken), two.keepAsking(t, living.AccessToken)
	one.identity.kill(t)
	down := time.After(outage)
	second.end(t)
	two.kill(t)
	two = serve(t, arguments...)
	two.failures = true
	second = two.keepAsking(t, living.AccessToken)
	two.refuses(t, ended.AccessToken)
	<-down
	one.refuses(t, ended.AccessToken)

	identity := serve(t, append(slices.Clone(one.identity.arguments), "--listen", strings.TrimPrefix(one.identity.public, "http://"))...)
	err = eventually(t.Context(), startPatience, "a sign-out after the outage", func(ctx context.Context) (bool, error) {
		a, err := one.try(ctx, "DELETE /v1/sessions/current", nil, bearer(last.AccessToken))
		return a.status == 204 || a.code() == "auth.revoked", err
	})
	if err != nil {
		t.Fatal(err)
	}
	one.refuses(t, last.AccessToken)
	two.refuses(t, last.AccessToken)
	identity.signIn(t, "owner@example.com")
	first.end(t)
	second.end(t)
}

// refuses waits until a gateway knows that a session has ended.
func (s *server) refuses(t testing.TB, access string) {
	t.Helper()
	err := eventually(t.Context(), startPatience, "the end of a session is known", func(ctx context.Context) (bool, error) {
		a, err := s.try(ctx, "GET /shop/", nil, bearer(access))
		return a.status == 401 && a.code() == "auth.revoked", err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// traffic is people who ask all the time.
type traffic struct {
	stop           context.CancelFunc
	people         sync.WaitGroup
	served, failed atomic.Int64
	failure        atomic.Value // of the first one, in words
}

// keepAsking lets a person ask through a gateway on some connections, one request after the other.
func (s *server) keepAsking(t testing.TB, access string) *traffic {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &traffic{stop: stop}
	t.Cleanup(func() { stop(); f.people.Wait() })
	for range 4 {
		f.people.Go(func() {
			for ctx.Err() == nil {
				a, err := s.try(context.WithoutCancel(ctx), "GET /shop/cart", nil, bearer(access))
				if err == nil {
					err = a.failed(200)
				}
				if err != nil && f.failed.Add(1) == 1 {
					f.failure.Store(err.Error())
				}
				f.served.Add(1)
			}
		})
	}
	return f
}

// end stops asking. Nothing may have failed.
func (f *traffic) end(t testing.TB) {
	t.Helper()
	f.stop()
	f.people.Wait()
	t.Logf("%d requests, %d failed", f.served.Load(), f.failed.Load())
	if f.failed.Load() > 0 || f.served.Load() == 0 {
		t.Errorf("%d of %d requests failed, the first: %v", f.failed.Load(), f.served.Load(), f.failure.Load())
	}
}
