package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
)

// behind is a service that stands behind the gateway and tells what it was told.
func behind(t testing.TB) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s for %q, token %q", r.Method, r.RequestURI, r.Header.Get("X-Sumun-Subject"), r.Header.Get("Authorization"))
	}))
	t.Cleanup(s.Close)
	return s
}

// routesFile writes a configuration file with a service and some routes to it.
func routesFile(t testing.TB, path, service, routes string) string {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "sumun.yaml")
	}
	text := "gateway:\n  upstreams:\n    - name: shop\n      endpoints:\n        - url: " + service + "\n  routes:\n" + routes
	// Renamed into place, as editors and orchestrators do.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

const (
	shopRoute = "    - name: shop\n      paths: [/shop/]\n      upstream: shop\n      strip: /shop\n      identity_headers: true\n      forward: none\n"
	openRoute = "    - name: open\n      paths: [/open]\n      upstream: shop\n      authentication: public\n"
)

// A service behind the gateway gets only requests of people who are signed in, and learns who they are; a person who signs out is
// gone there too, at once.
func TestServiceBehindTheGateway(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		s := st.serve(t, append(quick(), "--config", routesFile(t, "", behind(t).URL, shopRoute))...)
		st.addUser(t, "owner@example.com")
		one := s.signIn(t, "owner@example.com")
		s.send(t, "GET /shop/cart", nil).wantProblem(t, 401, "auth.missing")
		s.send(t, "GET /shop/..%2fadmin", nil, bearer(one.AccessToken)).wantProblem(t, 400, "gateway.path")
		me := s.send(t, "GET /v1/users/me", nil, bearer(one.AccessToken)).want(t, 200)
		var person struct{ ID string }
		me.decode(t, &person)
		a := s.send(t, "GET /shop/cart?x=1", nil, bearer(one.AccessToken), header("X-Sumun-Subject", "root"), header("X_Sumun_Subject", "root")).want(t, 200)
		if want := fmt.Sprintf("GET /cart?x=1 for %q, token \"\"", person.ID); string(a.body) != want || person.ID == "" {
			t.Errorf("the service was told %s, want %s", a.body, want)
		}
		s.send(t, "DELETE /v1/sessions/current", nil, bearer(one.AccessToken)).want(t, 204)
		err := eventually(t.Context(), 5*time.Second, "refused after signing out", func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, "GET /shop/cart", nil, bearer(one.AccessToken))
			return err == nil && a.status == 401 && a.code() == "auth.revoked", err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

// An operator changes routes while people are served: nobody notices, and a mistake changes nothing but tells.
func TestReload(t *testing.T) {
	t.Parallel()
	service := behind(t).URL
	file := routesFile(t, "", service, openRoute)
	s := sqliteStore(t).serve(t, append(quick(), "--config", file)...)
	s.failures = true // the log says why a configuration is not served
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var served, failed atomic.Int64
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		for ctx.Err() == nil {
			a, err := s.try(context.WithoutCancel(ctx), "GET /open", nil)
			if err != nil || a.status != 200 {
				failed.Add(1)
			}
			served.Add(1)
		}
	}()
	await := func(what string, done func(ctx context.Context) (bool, error)) {
		t.Helper()
		if err := eventually(t.Context(), 20*time.Second, what, done); err != nil {
			t.Error(err)
		}
	}
	status := func(request string, want int) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, request, nil)
			return a.status == want, err
		}
	}
	notes := func(part string, want bool) func(ctx context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			a, err := s.opsGet(ctx, "/readyz")
			return a.status == 200 && strings.Contains(string(a.body), part) == want, err
		}
	}
	routesFile(t, file, service, openRoute+shopRoute)
	await("a new route", status("GET /shop/", 401))
	routesFile(t, file, service, openRoute+strings.ReplaceAll(shopRoute, "upstream: shop", "upstream: nowhere"))
	await("the mistake is told", notes("gateway.routes[1].upstream (sumun.yaml:13): there is no upstream", true))
	s.send(t, "GET /shop/", nil).wantProblem(t, 401, "auth.missing")
	routesFile(t, file, service, openRoute)
	s.signal(t, syscall.SIGHUP)
	await("the route is gone", status("GET /shop/", 404))
	await("nothing is told any more", notes("not served", false))
	stop()
	<-idle
	if failed.Load() > 0 || served.Load() < 10 {
		t.Errorf("%d of %d requests failed meanwhile", failed.Load(), served.Load())
	}
}

// While identity is down, whoever holds a token goes on as before, also through a gateway that was started in the meantime: it knows from
// its snapshot which keys are good and who was signed out.
func TestGatewayStandsWithoutIdentity(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.split = true
	st.addUser(t, "owner@example.com")
	file := routesFile(t, "", behind(t).URL, shopRoute)
	s := st.serve(t, append(quick(), "--config", file, "SUMUN_GATEWAY_FEED_SNAPSHOT="+filepath.Join(t.TempDir(), "snapshot"))...)
	good, ended := s.signIn(t, "owner@example.com"), s.signIn(t, "owner@example.com")
	s.send(t, "DELETE /v1/sessions/current", nil, bearer(ended.AccessToken)).want(t, 204)
	err := eventually(t.Context(), 5*time.Second, "signed out", func(ctx context.Context) (bool, error) {
		a, err := s.try(ctx, "GET /shop/", nil, bearer(ended.AccessToken))
		return a.code() == "auth.revoked", err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.identity.kill(t)
	for range 50 {
		s.send(t, "GET /shop/", nil, bearer(good.AccessToken)).want(t, 200)
	}
	s.send(t, "GET /v1/users/me", nil, bearer(good.AccessToken)).want(t, 502)
	s.stop(t)
	again := serve(t, s.arguments...)
	for range 50 {
		again.send(t, "GET /shop/", nil, bearer(good.AccessToken)).want(t, 200)
	}
	again.send(t, "GET /shop/", nil, bearer(ended.AccessToken)).wantProblem(t, 401, "auth.revoked")
}

// A person whose token is revoked loses the connections that it opened.
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 1)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: hello\n\n")
		_ = http.NewResponseController(w).Flush()
		began <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(service.Close)
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	s := st.serve(t, slices.Concat(quick(), []string{"--config", routesFile(t, "", service.URL, shopRoute)})...)
	one := s.signIn(t, "owner@example.com")
	ended := make(chan error, 1)
	go func() {
		_, err := s.try(context.WithoutCancel(t.Context()), "GET /shop/events", nil, bearer(one.AccessToken), header("Accept", "text/event-stream"))
		ended <- err
	}()
	<-began
	s.send(t, "DELETE /v1/sessions/current", nil, bearer(one.AccessToken)).want(t, 204)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on after the person has signed out")
	}
}

// Whoever starts a gateway without saying where identity is must be told which key is missing.
func TestGatewayNeedsToKnowWhere(t *testing.T) {
	t.Parallel()
	r := command(t, "", "serve", "gateway", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	for _, want := range []string{"issuer: empty", "gateway.identity_url: empty"} {
		if r.code != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("exit code %d, want a line about %s:\n%s", r.code, want, r.stderr)
		}
	}
}

// One address may try few passwords, whatever accounts it tries them on.
func TestSignInsPerAddress(t *testing.T) {
	t.Parallel()
	// Passwords are checked fast: every six seconds one more may be tried.
	s := sqliteStore(t).serve(t, "SUMUN_PASSWORDS_ARGON2ID_MEMORY=7168", "SUMUN_PASSWORDS_ARGON2ID_TIME=1", "SUMUN_PASSWORDS_FAILURE_TIME=1ms")
	for i := range 11 {
		a := s.send(t, "POST /v1/sessions", credentials(fmt.Sprintf("nobody%d@example.com", i), password))
		if i < 10 {
			a.wantProblem(t, 401, "identity.invalid_credentials")
			continue
		}
		a.wantProblem(t, 429, "gateway.rate_limited")
		if a.header.Get("Retry-After") == "" || a.header.Get("Ratelimit-Policy") != `"sumun-sign-in";q=10;w=60` {
			t.Errorf("refused with %v", a.header)
		}
	}
	page := s.send(t, "GET /sign-in", nil, header("Accept", "text/html"))
	page.want(t, 200)
	form := s.send(t, "POST /sign-in", "identifier=a", header("Accept", "text/html"), header("Content-Type", "application/x-www-form-urlencoded"))
	if form.status != 429 || !strings.Contains(form.header.Get("Content-Type"), "text/html") {
		t.Errorf("a person gets %d %s", form.status, form.header.Get("Content-Type"))
	}
}

// A service behind the gateway verifies who calls with two lines, and what it is told opens no other door: not that of another service,
// not Sumun's.
func TestAssertions(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		var verify [2]atomic.Pointer[auth.Verifier]
		var services [2]*httptest.Server
		for i := range services {
			services[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				claims, err := verify[i].Load().VerifyRequest(r)
				if err != nil {
					http.Error(w, err.Error(), http.StatusTeapot)
					return
				}
				w.Header().Set("X-Told", r.Header.Get("Authorization"))
				fmt.Fprint(w, claims.Subject)
			}))
			t.Cleanup(services[i].Close)
		}
		file := routesFile(t, "", services[0].URL, strings.Replace(shopRoute, "forward: none", "forward: assertion", 1))
		s := st.serve(t, append(quick(), "--config", file)...)
		for i, name := range []string{"shop", "other"} {
			v, err := auth.New(auth.Config{Issuer: s.issuer + "/gateway", Audience: name, Type: auth.TypeAssertion})
			if err != nil {
				t.Fatal(err)
			}
			verify[i].Store(v)
		}
		st.addUser(t, "owner@example.com")
		one := s.signIn(t, "owner@example.com")
		var person struct{ ID string }
		s.send(t, "GET /v1/users/me", nil, bearer(one.AccessToken)).want(t, 200).decode(t, &person)
		a := s.send(t, "GET /shop/", nil, bearer(one.AccessToken)).want(t, 200)
		if string(a.body) != person.ID || person.ID == "" {
			t.Errorf("the service knows %q as %q", person.ID, a.body)
		}
		told, _ := strings.CutPrefix(a.header.Get("X-Told"), "Bearer ")
		for base, want := range map[string]string{services[1].URL: "meant for another service", services[0].URL: person.ID} {
			if a, err := s.tryAt(t.Context(), base, "GET /", nil, bearer(told)); err != nil || !strings.Contains(string(a.body), want) {
				t.Errorf("%s: %d %s, %v", base, a.status, a.body, err)
			}
		}
		s.send(t, "GET /v1/users/me", nil, bearer(told)).wantProblem(t, 401, "auth.type")
		s.send(t, "GET /shop/", nil, bearer(told)).wantProblem(t, 401, "auth.type")
	})
}
