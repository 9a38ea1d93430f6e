package fault_test

import (
	"encoding/json"
	"errors"
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
