package httpd_test

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd"
)

func echo() *fixture {
	x := setup(func(c *httpd.Config) { c.MaxBody = 1000 })
	x.mux.Handle("POST /v1/echo", httpd.Handler(func(w http.ResponseWriter, r *http.Request) error {
		var in struct {
			Name     string `json:"name"`
			Age      int8   `json:"age"`
			Password string `json:"password"`
		}
		if err := httpd.DecodeJSON(w, r, &in); err != nil {
			return err
		}
		return httpd.JSON(w, http.StatusCreated, map[string]string{"name": in.Name})
	}))
	return x
}

func TestDecodeJSON(t *testing.T) {
	t.Parallel()
	x := echo()
	const jsonType = "application/json"
	for _, tc := range []struct {
		name, contentType, body string
		status                  int
		code, field             string
	}{
		{"good", jsonType, `{"name":"Kim"}`, 201, "", ""},
		{"charset", "Application/JSON; charset=utf-8", ` {"name":"Kim"} ` + "\n", 201, "", ""},
		{"merge patch", "application/merge-patch+json", `{"name":"Kim"}`, 201, "", ""},
		{"a form", "application/x-www-form-urlencoded", `name=Kim`, 415, "request.unsupported_media", ""},
		{"a form dressed up", "text/plain", `{"name":"Kim"}`, 415, "request.unsupported_media", ""},
		{"no type", "", `{"name":"Kim"}`, 415, "request.unsupported_media", ""},
		{"broken type", "application/json; =", `{"name":"Kim"}`, 415, "request.unsupported_media", ""},
		{"empty", jsonType, ``, 400, "request.malformed", ""},
		{"cut off", jsonType, `{"name":"SECR`, 400, "request.malformed", ""},
		{"no JSON", jsonType, `SECRET`, 400, "request.malformed", ""},
		{"two values", jsonType, `{"name":"Kim"}{"name":"SECRET"}`, 400, "request.malformed", ""},
		{"rubbish behind", jsonType, `{"name":"Kim"} SECRET`, 400, "request.malformed", ""},
		{"unknown field", jsonType, `{"nmae":"SECRET"}`, 422, "request.invalid", "nmae"},
		{"long unknown field", jsonType, `{"` + strings.Repeat("é", 300) + `":1}`, 422, "request.invalid", strings.Repeat("é", 50)},
		{"wrong type", jsonType, `{"name":{"a":"SECRET"}}`, 422, "request.invalid", "name"},
		{"out of range", jsonType, `{"age":31337}`, 422, "request.invalid", "age"},
		{"too large", jsonType, `{"name":"` + strings.Repeat("x", 1000) + `"}`, 413, "request.too_large", ""},
		{"too much white space", jsonType, `{"name":"Kim"}` + strings.Repeat(" ", 1000), 413, "request.too_large", ""},
	} {
		for _, chunked := range []bool{false, true} {
			r := post("/v1/echo", tc.contentType, tc.body)
			if chunked {
				r.ContentLength = -1
			}
			w := x.do(r)
			if w.Code != tc.status {
				t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
				continue
			}
			if tc.code == "" {
				continue
			}
			p := problemOf(t, w)
			if p.Code != tc.code || tc.field != "" && (len(p.Errors) != 1 || p.Errors[0].Name != tc.field) {
				t.Errorf("%s: %+v", tc.name, p)
			}
			if strings.Contains(w.Body.String(), "SECRET") || strings.Contains(w.Body.String(), "31337") {
				t.Errorf("%s: a value comes back: %s", tc.name, w.Body)
			}
		}
	}
	if strings.Contains(x.log.String(), "SECRET") {
		t.Error("values in the log")
	}
}

func TestDecodeJSONOfABodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	x := echo()
	r := httptest.NewRequest(http.MethodPost, "/v1/echo", io.MultiReader(strings.NewReader(`{"name":`), failingReader{}))
	r.Header.Set("Content-Type", "application/json")
	if p := problemOf(t, x.do(r)); p.Code != "request.body_unread" {
		t.Errorf("%+v", p)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestJSONFailsBeforeItWrites(t *testing.T) {
	t.Parallel()
	x := setup()
	x.mux.Handle("GET /", httpd.Handler(func(w http.ResponseWriter, _ *http.Request) error {
		return httpd.JSON(w, http.StatusOK, math.NaN())
	}))
	if p := problemOf(t, x.do(httptest.NewRequest(http.MethodGet, "/", nil))); p.Code != "internal" {
		t.Errorf("%+v", p)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add("application/json", `{"name":"x","age":1}`)
	f.Add("application/json;charset=\"", `[[[[`)
	f.Add("application/x+json", `{"name":"x"}}`)
	x := echo()
	f.Fuzz(func(t *testing.T, contentType, body string) {
		w := x.do(post("/v1/echo", contentType, body))
		switch w.Code {
		case 201, 400, 413, 415, 422:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
