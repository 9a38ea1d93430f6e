package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// issuedKey is a key as the command prints it.
type issuedKey struct {
	ID  string `json:"id"`
	Key string `json:"api_key"`
}

func (st store) addKey(t testing.TB, args ...string) (k issuedKey) {
	t.Helper()
	r := st.command(t, "", slices.Concat([]string{"apikey", "add", "--json"}, args)...)
	if err := json.Unmarshal([]byte(r.stdout), &k); err != nil || r.code != 0 || k.Key == "" {
		t.Fatalf("apikey add: %+v, %v", r, err)
	}
	return k
}

// listedKey is a line of apikey list.
type listedKey struct {
	ID, Status string
	UsedAt     *time.Time `json:"used_at"`
}

func (st store) keyStatus(t testing.TB, id string) listedKey {
	t.Helper()
	r := st.command(t, "", "apikey", "list", "--json")
	for line := range strings.Lines(r.stdout) {
		var k listedKey
		if err := json.Unmarshal([]byte(line), &k); err != nil {
			t.Fatalf("apikey list: %v in %+v", err, r)
		}
		if k.ID == id {
			return k
		}
	}
	t.Fatalf("apikey list lacks %s: %+v", id, r)
	return listedKey{}
}

const keyRoute = `    - name: shop
      paths: [/shop/]
      upstream: shop
      identity_headers: true
      forward: none
      api_keys: true
      scopes: [orders]
      unlimited: true
`

// A program with a key is let in by the running server the moment the key is made, can do what the key says, and is refused the moment
// the key is revoked, by a command on another machine; and the key is nowhere but with the program.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	eachTopology(t, func(t *testing.T, st store) {
		service := behind(t)
		s := st.serve(t, append(quick(), "--config", routesFile(t, "", service.URL, keyRoute))...)
		st.addClient(t, "--name", "Billing", "--id", "billing", "--grant", "client_credentials", "--scope", "orders", "--scope", "other")
		key := st.addKey(t, "--client", "billing", "--name", "Nightly", "--scope", "orders")
		weak := st.addKey(t, "--client", "billing", "--name", "Weak", "--scope", "other")
		shown := header("X-API-Key", key.Key)
		want := `GET /shop/a for "billing", token ""`
		if a := s.send(t, "GET /shop/a", nil, shown).want(t, 200); string(a.body) != want {
			t.Errorf("the service was told %s, want %s", a.body, want)
		}
		if a := s.send(t, "GET /shop/a", nil, bearer(key.Key)).want(t, 200); string(a.body) != want {
			t.Errorf("the service was told %s, want %s", a.body, want)
		}
		s.send(t, "GET /shop/a", nil, header("X-API-Key", weak.Key)).wantProblem(t, 403, "auth.scope")
		s.send(t, "GET /shop/a", nil, header("X-API-Key", key.Key[:40]+"a"+key.Key[41:])).wantProblem(t, 401, "gateway.api_key")
		s.send(t, "GET /shop/a?api_key="+key.Key, nil).wantProblem(t, 401, "auth.missing")
		s.send(t, "GET /v1/users/me", nil, bearer(key.Key)).want(t, 401)
		st.together(t, s, shown)
		if k := st.keyStatus(t, key.ID); k.Status != "active" || k.UsedAt == nil {
			t.Errorf("listed %+v", k)
		}
		if r := st.command(t, "", "apikey", "revoke", key.ID); r.code != 0 || r.stdout != key.ID+" is revoked\n" {
			t.Errorf("apikey revoke: %+v", r)
		}
		began := time.Now()
		err := eventually(t.Context(), 2*time.Second, "refused after it was revoked", func(ctx context.Context) (bool, error) {
			a, err := s.try(ctx, "GET /shop/a", nil, shown)
			return err == nil && a.status == 401 && a.code() == "gateway.api_key", err
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("refused %v after the command had ended", time.Since(began))
		if k := st.keyStatus(t, key.ID); k.Status != "revoked" {
			t.Errorf("listed %+v", k)
		}
	})
}

// together shows one key in many requests at once.
func (st store) together(t *testing.T, s *server, shown option) {
	t.Helper()
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if a, err := s.try(t.Context(), "GET /shop/a", nil, shown); err != nil || a.status != 200 {
				t.Errorf("%d %s, %v", a.status, a.body, err)
			}
		})
	}
	group.Wait()
	ops := s.ops
	if st.split {
		ops = s.gatewayOps
	}
	a, err := s.tryAt(t.Context(), ops, "GET /metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	// The good key and the weak one, once each; the misspelt one was recognised as no key.
	if line := "sumun_gateway_api_key_exchanges_total{outcome=\"ok\"} 2\n"; !bytes.Contains(a.body, []byte(line)) {
		t.Errorf("no line %s", line)
	}
}

// While identity is down, a program whose key the gateway knows notices nothing, and a key that it does not know gets 503, not 401: the
// program keeps it.
func TestAPIKeysWithoutIdentity(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.split = true
	s := st.serve(t, append(quick(), "--config", routesFile(t, "", behind(t).URL, keyRoute))...)
	st.addClient(t, "--name", "Billing", "--id", "billing", "--grant", "client_credentials", "--scope", "orders")
	var keys [2]issuedKey
	for i := range keys {
		keys[i] = st.addKey(t, "--client", "billing", "--name", fmt.Sprint(i), "--scope", "orders")
	}
	s.send(t, "GET /shop/a", nil, bearer(keys[0].Key)).want(t, 200)
	s.identity.kill(t)
	for range 20 {
		s.send(t, "GET /shop/a", nil, bearer(keys[0].Key)).want(t, 200)
	}
	a := s.send(t, "GET /shop/a", nil, bearer(keys[1].Key))
	a.wantProblem(t, 503, "gateway.api_keys_unavailable")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
