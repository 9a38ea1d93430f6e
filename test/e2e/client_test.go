package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answer is an HTTP response, read to its end.
type answer struct {
	request string // "POST /v1/users"
	status  int
	header  http.Header
	body    []byte
}

// option changes a request before it is sent.
type option func(*http.Request)

func bearer(token string) option {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// try sends a request, "POST /v1/users", to the public listener, with body as JSON unless it is nil. The error is about the
// connection.
func (s *server) try(ctx context.Context, request string, body any, options ...option) (answer, error) {
	return s.tryAt(ctx, s.public, request, body, options...)
}

func (s *server) tryAt(ctx context.Context, base, request string, body any, options ...option) (answer, error) {
	method, path, _ := strings.Cut(request, " ")
	var content io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		content = strings.NewReader(b)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, content)
	if err != nil {
		return answer{}, err
	}
	if content != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, o := range options {
		o(r)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	a := answer{request: request, status: resp.StatusCode, header: resp.Header}
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

// send is try for the test's own goroutine: an answer there must be.
func (s *server) send(t testing.TB, request string, body any, options ...option) answer {
	t.Helper()
	a, err := s.try(t.Context(), request, body, options...)
	if err != nil {
		t.Fatalf("%s: %v", request, err)
	}
	return a
}

// opsGet reads from the operators' listener.
func (s *server) opsGet(ctx context.Context, path string, options ...option) (answer, error) {
	return s.tryAt(ctx, s.ops, "GET "+path, nil, options...)
}

// problem is a problem document (RFC 9457).
type problem struct {
	Type, Title, Detail, Code string
	Status                    int
	RequestID                 string `json:"request_id"`
	Errors                    []struct{ Name, Code, Message string }
}

// code is the problem's code, or "" when the answer is no problem document.
func (a answer) code() string {
	var p problem
	if media, _, _ := mime.ParseMediaType(a.header.Get("Content-Type")); media != "application/problem+json" {
		return ""
	}
	if json.Unmarshal(a.body, &p) != nil {
		return ""
	}
	return p.Code
}

// failed describes an answer of another status as an error.
func (a answer) failed(status int) error {
	if a.status == status {
		return nil
	}
	return fmt.Errorf("%s: %d, want %d: %s", a.request, a.status, status, a.body)
}

// want fails the test unless the answer has the status; it returns the answer.
func (a answer) want(t testing.TB, status int) answer {
	t.Helper()
	if err := a.failed(status); err != nil {
		t.Fatal(err)
	}
	return a
}

// wantProblem fails the test unless the answer is a whole problem document with that code.
func (a answer) wantProblem(t testing.TB, status int, code string) problem {
	t.Helper()
	a.want(t, status)
	var p problem
	a.decode(t, &p)
	switch {
	case a.code() != code:
		t.Fatalf("%s: code %q, want %q: %s", a.request, a.code(), code, a.body)
	case p.Status != status, p.Type != "/docs/errors#"+code, p.Title == "", p.RequestID == "", p.RequestID != a.header.Get("X-Request-Id"):
		t.Errorf("%s: incomplete problem document %s", a.request, a.body)
	case a.header.Get("Cache-Control") != "no-store":
		t.Errorf("%s: a problem may be cached: %q", a.request, a.header.Get("Cache-Control"))
	}
	return p
}

func (a answer) decode(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v in %s", a.request, err, a.body)
	}
}

// retryEvery is how often something that happens in the background is looked for.
const retryEvery = 20 * time.Millisecond

// eventually asks again and again until done reports true, and fails once the time is over.
func eventually(ctx context.Context, within time.Duration, what string, done func(ctx context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		ok, err := done(ctx)
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v (%w)", what, within, err)
		case <-ticker.C:
		}
	}
}
