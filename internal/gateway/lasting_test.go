package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
	"github.com/sumunio/sumun/internal/gateway"
	"github.com/sumunio/sumun/internal/gateway/upstream"
	"github.com/sumunio/sumun/internal/httpd"
)

// Whatever somebody opened with a token ends with it, on both sides: a thief who is signed out must not go on listening.
func TestStreamsEndWithTheirToken(t *testing.T) {
	t.Parallel()
	ended := make(chan string, 16)
	service := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if accept := r.Header.Get("Accept"); accept == "text/event-stream" {
			w.Header().Set("Content-Type", accept)
		}
		fmt.Fprintln(w, "began")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- r.URL.Path
	}))
	service.Config.Protocols = new(http.Protocols)
	service.Config.Protocols.SetHTTP1(true)
	service.Config.Protocols.SetUnencryptedHTTP2(true)
	service.Start()
	t.Cleanup(service.Close)
	issuer := authtest.New(t)
	long := required("long", "/long")
	long.Timeout = time.Minute
	all := []gateway.Route{long, required("events", "/events"), required("grpc", "/grpc")}
	for i := range all {
		all[i].Upstream = "plain"
	}
	all[2].Upstream = "http2"
	w := setup(t, routes(all...), func(c *gateway.Config, d *gateway.Deps, _ *httpd.Config) {
		plain, http2 := newUpstream("plain", service.URL), newUpstream("http2", service.URL)
		http2.Protocol = upstream.ProtocolHTTP2
		c.Upstreams = append(c.Upstreams, plain, http2)
		d.Verifier = issuer.Verifier()
	})
	expiring := func(c *auth.Claims) { c.ExpiresAt = c.IssuedAt.Add(-57 * time.Second) } // and clocks may differ by 60 s
	for path, header := range map[string][2]string{
		"/long": {"Accept", "*/*"}, "/events": {"Accept", "text/event-stream"}, "/grpc": {"Content-Type", "application/grpc"},
	} {
		for _, token := range []string{issuer.Token(authtest.WithSession(path)), issuer.Token(expiring)} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+w.address+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set(header[0], header[1])
			answer, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", path, answer.Status)
			}
			began := make([]byte, len("began\n"))
			if _, err := io.ReadFull(answer.Body, began); err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			issuer.RevokeSession(path)
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}()
			for _, side := range []string{"client", "service"} {
				select {
				case <-gone:
					gone = nil
				case <-ended:
				case <-time.After(20 * time.Second):
					t.Fatalf("%s: the %s's side goes on", path, side)
				}
			}
		}
	}
}
