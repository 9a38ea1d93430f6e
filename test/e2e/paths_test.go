package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const adminRoutes = `    - name: all
      paths: [/]
      upstream: shop
      authentication: public
      limits: [{by: address, rate: 1000000}]
    - name: admin
      paths: [/admin/]
      upstream: shop
      roles: [admin]
`

// However a path is written, what nginx keeps for administrators is not served to those whom the gateway let in for something else.
func TestNginxReadsPathsAlike(t *testing.T) {
	t.Parallel()
	demanded(t, nginxVariable)
	address := freeAddress(t)
	c := nginxWith(t, fmt.Sprintf(`server { listen %s; location / { return 200 "open"; } location ~* "^/admin(/|;|$)" { return 200 "secret"; } }`, address))
	c.SysProcAttr, c.Stderr = orphanless(), os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	s := sqliteStore(t).serve(t, append(quick(), "--config", routesFile(t, "", "http://"+address, adminRoutes))...)
	err := eventually(t.Context(), startPatience, "nginx serves", func(ctx context.Context) (bool, error) {
		a, err := s.try(ctx, "GET /", nil)
		return err == nil && string(a.body) == "open", err
	})
	if err != nil {
		t.Fatal(err)
	}
	try := func(target string) {
		if body := s.rawGet(t, target); strings.Contains(body, "secret") {
			t.Errorf("GET %s was served", target)
		}
	}
	for _, target := range []string{
		"/admin", "/admin/", "//admin/", "/x/../admin/", "/%61dmin/", "/admin%2f", "/%2e/admin/", "/x/%2e%2e/admin/", "/x%2f..%2fadmin/", "/admin;x/",
		"/admin%00/", "/admin%c0%af", "/x/..;/admin/", "/\\admin/", "/x\\..\\admin/", "/.//admin/", "/x/..//admin/", "/admin%20/", "/admin?x", "/admin#x",
		"/x?/../admin/", "/x#/../admin/", "/%2561dmin/", "/x/%252e%252e/admin/", "http://x/admin/", "http://x//admin/", "http://x/y/../admin/", "x/admin/", "/admin%0d%0a/",
	} {
		try(target)
	}
	pieces := rapid.SampledFrom([]string{"admin", "/", "//", ".", "..", "%2e", "%2f", "%5c", "\\", ";", "%3b", "%00", "x", "%61", "%c0%af", "%25", "?", "#", "/admin/"})
	rapid.Check(t, func(rt *rapid.T) {
		try("/" + strings.Join(rapid.SliceOfN(pieces, 1, 8).Draw(rt, "pieces"), ""))
	})
	direct := &server{public: "http://" + address}
	if a := direct.rawGet(t, "/x/..//%61dmin/"); !strings.Contains(a, "secret") {
		t.Errorf("nginx itself: %s", a)
	}
	if a := s.rawGet(t, "/shop/x"); !strings.Contains(a, "open") {
		t.Errorf("what is open: %s", a)
	}
}

// rawGet asks for a target letter by letter, and returns all that comes back.
func (s *server) rawGet(t testing.TB, target string) string {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(s.public, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http.MethodGet+" "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}
