package e2e_test

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// serveAsking starts a gateway that asks identity about tokens, where identity is part of its process, too.
func (st store) serveAsking(t *testing.T, routes string) *server {
	t.Helper()
	if st.split {
		return st.serve(t, append(quick(), "--config", routes)...)
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	issuer := "http://localhost:" + port
	is := st.addClient(t, gatewayClient(issuer)...)
	return serve(t, slices.Concat(st.args, quick(), []string{"--config", routes, "--issuer", issuer, "--listen", address,
		"SUMUN_GATEWAY_FEED_CLIENT_ID=" + is.ID, "SUMUN_GATEWAY_FEED_CLIENT_SECRET=" + is.Secret})...)
}

// Keys that became known are withdrawn by one command beside servers that run: what was made with them is refused wherever it is shown, and
// what is asked for then is good.
func TestKeysAreWithdrawn(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		const toldRoute = "    - name: told\n      paths: [/told]\n      upstream: shop\n"
		s := st.serveAsking(t, routesFile(t, "", behind(t).URL, toldRoute+payRoute+"      api_keys: true\n"))
		opaque := st.addClient(t, "--name", "Opaque", "--id", "opaque", "--grant", "client_credentials", "--opaque-tokens")
		key := st.addKey(t, "--client", "opaque", "--name", "Nightly")
		stolen := s.clientToken(t, opaque).accessToken(t)
		s.send(t, "GET /pay", nil, bearer(stolen)).want(t, 200)
		s.send(t, "GET /pay", nil, header("X-API-Key", key.Key)).want(t, 200)
		asked := func(token string) answer {
			return s.send(t, "POST /oauth/introspect", url.Values{"token": {token}}.Encode(), header("Content-Type", "application/x-www-form-urlencoded"),
				func(r *http.Request) { r.SetBasicAuth(opaque.ID, opaque.Secret) }).want(t, 200)
		}
		withdraw := func(kind string) {
			t.Helper()
			if r := st.command(t, "", "keys", "rotate", "--kind", kind, "--revoke-old"); r.code != 0 || r.stderr != "" {
				t.Fatalf("keys rotate: %+v", r)
			}
		}
		withdraw("opaque")
		if err := eventually(t.Context(), 20*time.Second, "the end of the old key's tokens", func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, "GET /pay", nil, bearer(stolen))
			return a.status == 401, err
		}); err != nil {
			t.Fatal(err)
		}
		if a := asked(stolen); strings.Contains(string(a.body), "true") {
			t.Errorf("introspection still says %s", a.body)
		}
		fresh := s.clientToken(t, opaque).accessToken(t)
		s.send(t, "GET /pay", nil, bearer(fresh)).want(t, 200)
		if a := asked(fresh); !strings.Contains(string(a.body), `"active":true`) {
			t.Errorf("a new token: %s", a.body)
		}
		s.send(t, "GET /pay", nil, header("X-API-Key", key.Key)).want(t, 200)

		if st.split {
			return // a gateway apart from identity has a key of its own
		}
		plain := s.clientToken(t, st.addClient(t, "--name", "Plain", "--id", "plain", "--grant", "client_credentials")).accessToken(t)
		kid := func(ctx context.Context) (string, error) { // what assertions are signed with now, of which the one before is not published
			a, err := s.try(ctx, "GET /told", nil, bearer(plain))
			_, told, _ := strings.Cut(string(a.body), "Bearer ")
			head, _, _ := strings.Cut(told, ".")
			return head, err
		}
		before, err := kid(t.Context())
		published := string(s.send(t, "GET /gateway/.well-known/jwks.json", nil).want(t, 200).body)
		if err != nil || before == "" {
			t.Fatalf("the service was told nothing, %v", err)
		}
		withdraw("assertion")
		if err := eventually(t.Context(), 20*time.Second, "assertions under another key", func(ctx context.Context) (bool, error) {
			now, err := kid(ctx)
			return now != before && now != "", err
		}); err != nil {
			t.Fatal(err)
		}
		if string(s.send(t, "GET /gateway/.well-known/jwks.json", nil).want(t, 200).body) == published {
			t.Error("the withdrawn key is published")
		}
	})
}
