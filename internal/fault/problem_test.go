package fault_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	f := errSoldOut.Wrap(errors.New("password=hunter2")).
		With("Only <2> are left.").
		WithFields(fault.Field{Name: "quantity", Code: "too_many", Message: "Must be at most 2."}).
		After(1500 * time.Millisecond).
		Challenge(`Bearer error="invalid_token"`)

	w := httptest.NewRecorder()
	w.Header().Set("Content-Length", "3")
	w.Header().Set("ETag", `"v1"`)
	w.Header().Set("Cache-Control", "public")
	f.WriteProblem(w, "req-1")

	if w.Code != http.StatusConflict {
		t.Errorf("status %d", w.Code)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "Retry-After": "2",
		"Www-Authenticate": `Bearer error="invalid_token"`, "Content-Length": "", "Etag": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if strings.Contains(w.Body.String(), "hunter2") {
		t.Fatal("the cause is shown to the client")
	}
	var p fault.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Type != "/docs/errors#inventory.sold_out" || p.Title != "Not enough stock is left." || p.Status != 409 ||
		p.Detail != "Only <2> are left." || p.Code != "inventory.sold_out" || p.RequestID != "req-1" || len(p.Errors) != 1 {
		t.Errorf("problem %+v", p)
	}
}

// What one of our servers says, one of our clients must understand as the same fault.
func TestFromResponseIsTheWayBack(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	errSoldOut.With("Only 2 are left.").WithFields(fault.Field{Name: "quantity", Message: "Too many."}).
		After(3*time.Second).Challenge("Bearer").WriteProblem(w, "req-9")

	err := fault.FromResponse(w.Result())
	if !errors.Is(err, errSoldOut) {
		t.Fatalf("got %v", err)
	}
	f := fault.From(err)
	if f.Kind() != fault.Conflict || f.Message() != "Only 2 are left." || f.RetryAfter() != 3*time.Second ||
		f.WWWAuthenticate() != "Bearer" || len(f.Fields()) != 1 || !strings.Contains(f.Error(), "req-9") {
		t.Errorf("fault %+v", f)
	}
	if err := fault.FromResponse(httptest.NewRecorder().Result()); err != nil {
		t.Errorf("a 200 is an error: %v", err)
	}
}

func TestFromResponseWithoutAProblemDocument(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
		kind                    fault.Kind
	}{
		{"a proxy's page", "text/html", "<h1>Bad gateway</h1>", 502, fault.Unavailable},
		{"empty", fault.ContentType, "", 503, fault.Unavailable},
		{"cut off", fault.ContentType, `{"code":"a.b","title":"T`, 404, fault.NotFound},
		{"no code", fault.ContentType, `{"title":"T"}`, 500, fault.Internal},
		{"hostile code", fault.ContentType, `{"code":"<script>","title":"T"}`, 400, fault.Malformed},
		{"endless", fault.ContentType, `{"code":"a.b","title":"` + strings.Repeat("x", 1<<20), 429, fault.RateLimited},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := fault.From(fault.FromResponse(&http.Response{
				StatusCode: tc.status,
				Header:     http.Header{"Content-Type": {tc.contentType}},
				Body:       io.NopCloser(strings.NewReader(tc.body)),
			}))
			if f.Kind() != tc.kind || !strings.HasPrefix(f.Code(), "upstream.status_") || strings.Contains(f.Message(), "<") {
				t.Errorf("%v %q %q", f.Kind(), f.Code(), f.Message())
			}
		})
	}
}

func TestRetryAfterDate(t *testing.T) {
	t.Parallel()
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := fault.From(fault.FromResponse(&http.Response{
		StatusCode: 503,
		Header: http.Header{
			"Date":        {date.Format(http.TimeFormat)},
			"Retry-After": {date.Add(90 * time.Second).Format(http.TimeFormat)},
		},
		Body: http.NoBody,
	}))
	if f.RetryAfter() != 90*time.Second {
		t.Errorf("retry after %v", f.RetryAfter())
	}
}

func FuzzFromResponse(f *testing.F) {
	f.Add(409, "application/problem+json", "5", `{"code":"a.b","title":"T","errors":[{"name":"x","message":"y"}]}`)
	f.Add(500, "application/problem+json; charset=\xff", "-1", `{"code":1}`)
	f.Add(99999, "", "Fri, 02 Jan 2026 03:04:05 GMT", "\x00")
	f.Fuzz(func(t *testing.T, status int, contentType, retryAfter, body string) {
		err := fault.FromResponse(&http.Response{
			StatusCode: status,
			Header:     http.Header{"Content-Type": {contentType}, "Retry-After": {retryAfter}},
			Body:       io.NopCloser(strings.NewReader(body)),
		})
		if (err != nil) != (status >= 400) {
			t.Fatalf("status %d: %v", status, err)
		}
		if err == nil {
			return
		}
		got := fault.From(err)
		if got.Code() == "" || got.Message() == "" || got.Status() < 400 || got.RetryAfter() < 0 || got.RetryAfter() > 24*time.Hour {
			t.Fatalf("unusable fault %+v", got)
		}
		got.WriteProblem(httptest.NewRecorder(), "")
	})
}
