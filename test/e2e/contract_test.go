package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Refusals are what client programs are written against: status, permanent code and headers must not change.
func TestRefusals(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	st.addUser(t, "owner@example.com")
	s := st.serve(t)
	access := s.signIn(t, "owner@example.com").AccessToken
	form := header("Content-Type", "application/x-www-form-urlencoded")
	for _, test := range []struct {
		name, request string
		body          any
		options       []option
		status        int
		code          string
	}{
		{"unknown path", "GET /v1/nothing", nil, nil, 404, "request.not_found"},
		{"wrong method", "PUT /v1/sessions", nil, nil, 405, "request.method_not_allowed"},
		{"not JSON", "POST /v1/users", "{", nil, 400, "request.malformed"},
		{"unknown field", "POST /v1/users", `{"email":"a@example.com","admin":true}`, nil, 422, "request.invalid"},
		{"missing field", "POST /v1/users", `{}`, nil, 422, "request.invalid"},
		{"no address", "POST /v1/users", `{"email":"nobody"}`, nil, 422, "request.invalid"},
		{"a form", "POST /v1/users", "email=a", []option{form}, 415, "request.unsupported_media"},
		{"asks for XML", "GET /v1/users/me", nil, []option{bearer(access), header("Accept", "application/xml")}, 406, "request.not_acceptable"},
		{"no such session", "DELETE /v1/sessions/nonsense", nil, []option{bearer(access)}, 404, "session.not_found"},
		{"no such link", "POST /v1/users/confirmations", `{"token":"x","name":"x","password":"cobalt lantern 58"}`, nil, 410, "identity.confirmation_invalid"},
		{"token in the query", "GET /v1/users/me?access_token=" + access, nil, nil, 401, "auth.missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a := s.send(t, test.request, test.body, test.options...)
			p := a.wantProblem(t, test.status, test.code)
			if test.status == 405 && !strings.Contains(a.header.Get("Allow"), "POST") {
				t.Errorf("Allow: %q", a.header.Get("Allow"))
			}
			if test.status == 422 && len(p.Errors) == 0 {
				t.Errorf("the field is not named: %s", a.body)
			}
		})
	}
}

// Who sends too much must be told so, every time, instead of seeing the connection break: programs would try again.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t)
	for name, size := range map[string]int{"a little too large": 1 << 20, "far too large": 8 << 20} {
		body := `{"email":"` + strings.Repeat("a", size) + `"}`
		chunked := option(func(r *http.Request) { r.ContentLength = -1 })
		for i := range 20 {
			a, err := s.try(t.Context(), "POST /v1/users", body, []option{header("X", ""), chunked}[i%2])
			if err != nil {
				t.Errorf("%s, attempt %d: %v", name, i, err)
				break
			}
			a.wantProblem(t, 413, "request.too_large")
		}
	}
}

// What is left of a refused body must never be taken for a request: behind a proxy, that would be somebody else's.
func TestRefusedBodiesAreNoRequests(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t)
	const unit = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	body := `{"email":"` + strings.Repeat(unit, (8<<20)/len(unit))
	for name, head := range map[string]string{
		"known length": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
		"chunked":      fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
	} {
		for path, media := range map[string]string{"/v1/users": "application/json", "/sign-up": "application/x-www-form-urlencoded"} {
			h := s.dial(t, "")
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = io.WriteString(h, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Type: "+media+"\r\n"+head) // it may be cut
			}()
			if resp, err := http.ReadResponse(h.reader, nil); err == nil {
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 413 {
					t.Errorf("%s, %s: %s (%v)", name, path, resp.Status, err)
				}
				if more, err := http.ReadResponse(h.reader, nil); err == nil {
					t.Errorf("%s, %s: the body is answered as if it were a request: %s", name, path, more.Status)
				}
			}
			h.Close()
			<-sent
		}
	}
}

// Every answer protects the person who gets it.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t)
	for _, path := range []string{"/", "/sign-in", "/sign-up", "/recover", "/docs", "/docs/errors", "/nothing", "/v1/users/me", "/openapi.json"} {
		a := s.send(t, "GET "+path, nil)
		policy := a.header.Get("Content-Security-Policy")
		if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%s: Content-Security-Policy %q", path, policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		if referrer := a.header.Get("Referrer-Policy"); referrer != "no-referrer" && referrer != "same-origin" {
			t.Errorf("%s: other sites see where a person comes from: %q", path, referrer)
		}
		if a.header.Get("Server") != "" || a.header.Get("X-Powered-By") != "" {
			t.Errorf("%s: tells what serves it: %v", path, a.header)
		}
	}
	for _, target := range []string{"//evil.example", `/\evil.example`, "https://evil.example", "/\t/evil.example", "/%09/evil.example"} {
		a := s.send(t, "POST /language", "lang=ko&return_to="+target, header("Content-Type", "application/x-www-form-urlencoded"))
		if to := a.header.Get("Location"); a.status != 303 || strings.HasPrefix(to, "//") || !strings.HasPrefix(to, "/") || strings.Contains(to, `\`) {
			t.Errorf("return_to=%s leads to %q", target, to)
		}
	}
}

// openAPI is what the test reads of the document.
type openAPI struct {
	OpenAPI string
	Info    struct{ Title, Version string }
	Paths   map[string]map[string]struct {
		OperationID, Summary string
		Security             []map[string][]string
		Responses            map[string]struct {
			Content map[string]struct{ Schema map[string]any }
		}
	}
	Components struct {
		SecuritySchemes map[string]any
		Schemas         map[string]any
	}
}

// Clients are generated from the document: it must be there, whole, and tell the truth about who may call what.
func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()
	s := sqliteStore(t).serve(t)
	var doc openAPI
	s.send(t, "GET /openapi.json", nil).want(t, 200).decode(t, &doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || doc.Info.Title == "" || doc.Info.Version == "" || doc.Components.SecuritySchemes["bearer"] == nil {
		t.Errorf("head of the document: %+v", doc)
	}
	seen := map[string]bool{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			name := strings.ToUpper(method) + " " + path
			if op.Summary == "" || op.OperationID == "" || seen[op.OperationID] {
				t.Errorf("%s: summary %q, id %q", name, op.Summary, op.OperationID)
			}
			seen[op.OperationID] = true
			problem := false
			for status, response := range op.Responses {
				problem = problem || response.Content["application/problem+json"].Schema["$ref"] == "#/components/schemas/Problem" && status != "200"
			}
			if !problem {
				t.Errorf("%s: no problem response", name)
			}
			a := s.send(t, strings.ReplaceAll(name, "{id}", "x"), nil)
			if refused := a.code() == "auth.missing"; refused != (len(op.Security) > 0) {
				t.Errorf("%s: security %v, but without a token it answers %d %s", name, op.Security, a.status, a.code())
			}
		}
	}
	for _, want := range []string{
		"POST /v1/users", "POST /v1/users/confirmations", "GET /v1/users/me", "PATCH /v1/users/me", "DELETE /v1/users/me",
		"POST /v1/sessions", "POST /v1/sessions/refresh", "GET /v1/sessions", "DELETE /v1/sessions/{id}",
		"DELETE /v1/sessions/current", "DELETE /v1/sessions",
	} {
		method, path, _ := strings.Cut(want, " ")
		if _, found := doc.Paths[path][strings.ToLower(method)]; !found {
			t.Errorf("%s is not documented", want)
		}
	}
	page := string(s.send(t, "GET /docs", nil).want(t, 200).body)
	for path := range doc.Paths {
		if !strings.Contains(page, path) {
			t.Errorf("the page /docs does not show %s", path)
		}
	}
}

// Services fetch the keys, cache them, and verify locally ever after.
func TestJWKS(t *testing.T) {
	t.Parallel()
	st := sqliteStore(t)
	s := st.serve(t)
	a := s.send(t, "GET /.well-known/jwks.json", nil).want(t, 200)
	tag := a.header.Get("ETag")
	if !strings.Contains(a.header.Get("Cache-Control"), "public, max-age=") || tag == "" {
		t.Errorf("headers: %v", a.header)
	}
	if len(a.header["Set-Cookie"]) > 0 || strings.Contains(string(a.body), `"d"`) {
		t.Errorf("a private key or a cookie: %s %v", a.body, a.header)
	}
	s.send(t, "GET /.well-known/jwks.json", nil, header("If-None-Match", tag)).want(t, 304)
	before := keyIDs(t, a)

	if r := st.command(t, "", "keys", "rotate", "--now"); r.code != 0 {
		t.Fatalf("keys rotate: %+v", r)
	}
	after := keyIDs(t, st.serve(t).send(t, "GET /.well-known/jwks.json", nil).want(t, 200))
	if len(after) != len(before)+1 || !slices.Contains(after, before[0]) {
		t.Errorf("the old key went before its last token: %v, then %v", before, after)
	}
}

func keyIDs(t testing.TB, a answer) (ids []string) {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, Kty, Use, Alg string }
	}
	a.decode(t, &set)
	for _, k := range set.Keys {
		if k.Kid == "" || k.Kty != "EC" || k.Use != "sig" || k.Alg != "ES256" {
			t.Errorf("key %+v", k)
		}
		ids = append(ids, k.Kid)
	}
	if len(ids) == 0 {
		t.Fatalf("no keys: %s", a.body)
	}
	return ids
}
