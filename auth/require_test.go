package auth_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/auth/authtest"
)

// A client can only do the right thing when the answer tells it which: ask for a scope, ask a person, or wait.
func TestRequire(t *testing.T) {
	t.Parallel()
	issuer := authtest.New(t)
	v := issuer.Verifier()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	chain := v.Middleware
	const tooLittle = `Bearer realm="sumun", error="insufficient_scope", error_description=`
	for name, row := range map[string]struct {
		handler http.Handler
		token   string
		status  int
		code    string
		header  string
	}{
		"both scopes": {chain(auth.RequireScope("a", "b")(ok)), issuer.Token(authtest.WithScope("b", "c", "a")), 204, "", ""},
		"one scope": {chain(auth.RequireScope("a", "b")(ok)), issuer.Token(authtest.WithScope("a", "bb")), 403, "auth.scope",
			tooLittle + `"The access token has not the scope that is needed.", scope="a b"`},
		"a role": {chain(auth.RequireRole("admin", "support")(ok)), issuer.Token(authtest.WithRoles("x", "support")), 204, "", ""},
		"no role": {chain(auth.RequireRole("admin")(ok)), issuer.Token(authtest.WithRoles("administrator")), 403, "auth.role",
			tooLittle + `"None of the token's roles may do this."`},
		"nobody verified": {auth.RequireScope("a")(ok), issuer.Token(authtest.WithScope("a")), 401, "auth.missing", `Bearer realm="sumun"`},
		"fresh":           {chain(v.RequireFresh(ok)), issuer.Token(), 204, "", ""},
	} {
		w := ask(row.handler, row.token)
		checkRefusal(t, name, w, row.status, row.code, row.header)
	}
	issuer.GoStale()
	w := ask(chain(v.RequireFresh(ok)), issuer.Token())
	checkRefusal(t, "stale", w, 503, "auth.stale", "")
	if w.Header().Get("Retry-After") == "" {
		t.Error("stale: the client is not told to come back")
	}
	checkRefusal(t, "stale, but not critical", ask(chain(ok), issuer.Token()), 204, "", "")
}

func ask(h http.Handler, token string) *httptest.ResponseRecorder {
	r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
	r.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(w, r)
	return w
}

func checkRefusal(t *testing.T, name string, w *httptest.ResponseRecorder, status int, code, header string) {
	t.Helper()
	var problem struct{ Code string }
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if got := w.Header().Get("WWW-Authenticate"); w.Code != status || problem.Code != code || got != header {
		t.Errorf("%s: got %d %s %s\nwant %d %s %s", name, w.Code, problem.Code, got, status, code, header)
	}
}

// A scope with a quote in it would end up in a header: the program does not start with one.
func TestRequireRefusesNonsense(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(){
		"no scope":    func() { auth.RequireScope() },
		"quote":       func() { auth.RequireScope(`a"b`) },
		"line break":  func() { auth.RequireScope("a\r\nSet-Cookie: b") },
		"two in one":  func() { auth.RequireScope("a b") },
		"empty scope": func() { auth.RequireScope("") },
		"no role":     func() { auth.RequireRole() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: accepted", name)
				}
			}()
			f()
		}()
	}
}
