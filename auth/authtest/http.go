package authtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sumunio/sumun/auth"
)

// Serve returns an issuer that speaks HTTP on loopback until the test ends: metadata, keys, tokens by client credentials, and the
// revocation feed. Name is its address.
func Serve(tb testing.TB) *Issuer {
	tb.Helper()
	i := New(tb)
	server := httptest.NewServer(i.Handler())
	tb.Cleanup(server.Close)
	tb.Cleanup(server.CloseClientConnections)
	i.Name = server.URL
	return i
}

// Credentials registers a service that may read the feed, and returns how it proves that it does.
func (i *Issuer) Credentials() auth.TokenSource {
	i.tb.Helper()
	id, secret := "service", "secret-of-the-service"
	i.mu.Lock()
	i.clients[id] = secret
	i.mu.Unlock()
	c, err := auth.NewClientCredentials(auth.ClientCredentialsConfig{Issuer: i.Name, ID: id, Secret: secret})
	if err != nil {
		i.tb.Fatal(err)
	}
	return c
}

// Handler is the issuer's HTTP side, for tests that want a server of their own. Set Name to its address.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", i.metadata)
	mux.HandleFunc("GET /.well-known/openid-configuration", i.metadata)
	mux.HandleFunc("GET /jwks", i.keys)
	mux.HandleFunc("POST /oauth/token", i.token)
	mux.HandleFunc("GET /v1/revocations", i.feed)
	return mux
}

func (i *Issuer) metadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{
		"issuer": i.Name, "jwks_uri": i.Name + "/jwks", "token_endpoint": i.Name + "/oauth/token",
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	document, err := i.jwks()
	if err != nil {
		answer(w, http.StatusInternalServerError, nil)
		return
	}
	_, _ = w.Write(document)
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	i.mu.Lock()
	registered, there := i.clients[id]
	i.mu.Unlock()
	if !there || secret != registered {
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	}
	if r.PostFormValue("grant_type") != "client_credentials" {
		answer(w, http.StatusBadRequest, map[string]string{"error": "unsupported_grant_type"})
		return
	}
	now := i.Now()
	raw := i.sign(jwt.MapClaims{
		"iss": i.Name, "sub": id, "client_id": id, "aud": i.Name, "scope": r.PostFormValue("scope"), "iat": now.Unix(),
		"exp": now.Add(15 * time.Minute).Unix(),
	})
	answer(w, http.StatusOK, map[string]any{"access_token": raw, "token_type": "Bearer", "expires_in": 900})
}

// mayRead checks the token that opens the feed: a service's, with the scope for it.
func (i *Issuer) mayRead(r *http.Request) error {
	v, err := auth.New(auth.Config{Issuer: i.Name, Keys: keys{i}, Clock: i.Now, Cache: auth.NoCache{}})
	if err != nil {
		return err
	}
	claims, err := v.VerifyRequest(r)
	if err != nil {
		return err
	}
	return auth.CheckScope(claims, auth.FeedScope)
}

func (i *Issuer) feed(w http.ResponseWriter, r *http.Request) {
	if err := i.mayRead(r); err != nil {
		status, challenge, code := auth.Challenge(err)
		w.Header().Set("WWW-Authenticate", challenge)
		answer(w, status, map[string]string{"code": code})
		return
	}
	position := parsePosition(r.Header.Get("Last-Event-ID"))
	_, _, silent, _ := i.since(position)
	if silent {
		answer(w, http.StatusServiceUnavailable, nil)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	i.stream(w, r, position)
}

// stream sends what is new until the client has gone or the news stop.
func (i *Issuer) stream(w http.ResponseWriter, r *http.Request, position int) {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		entries, reset, silent, changed := i.since(position)
		if silent {
			return
		}
		if reset {
			position = 0
			_, _ = fmt.Fprint(w, "event: reset\ndata: {}\n\n")
		}
		position += len(entries)
		if len(entries) > 0 {
			_, _ = fmt.Fprintf(w, "event: revocations\nid: %d\ndata: %s\n\n", position, wire(entries))
		}
		_, _ = fmt.Fprintf(w, "event: current\nid: %d\ndata: {\"age_ms\":0}\n\n", position)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-beat.C:
		case <-r.Context().Done():
			return
		}
	}
}

func parsePosition(text string) int {
	position, err := strconv.Atoi(text)
	if err != nil {
		return unknown
	}
	return position
}

func wire(entries []auth.Revocation) string {
	parts := make([]string, len(entries))
	for i, e := range entries {
		parts[i] = fmt.Sprintf(`{"kind":%q,"id":%q,"epoch":%d,"until":%d}`, e.Kind, encode(e.ID[:]), e.Epoch, e.Until.Unix())
	}
	return `{"entries":[` + strings.Join(parts, ",") + `]}`
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone when this fails
}
