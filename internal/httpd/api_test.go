package httpd_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

type thingIn struct {
	Limit int `query:"limit" minimum:"1" maximum:"100" default:"10"`
	Body  struct {
		Name     string   `json:"name" minLength:"2"`
		Password string   `json:"password" minLength:"8" maxLength:"64"`
		Email    string   `json:"email,omitempty" format:"email"`
		Site     string   `json:"site,omitempty" format:"uri"`
		ID       string   `json:"id,omitempty" format:"uuid"`
		Kind     string   `json:"kind,omitempty" enum:"a,b"`
		PIN      string   `json:"pin,omitempty" pattern:"^[0-9]+$"`
		Age      int8     `json:"age,omitempty"`
		Tags     []string `json:"tags,omitempty" maxItems:"2" uniqueItems:"true"`
		Address  struct {
			City string `json:"city"`
		} `json:"address,omitempty"`
	}
}

type thingOut struct {
	Body struct {
		Name string `json:"name"`
	}
}

// api returns a fixture with POST /v1/things, whose operation returns fail, and DELETE /v1/things.
func api(fail func() error) (*fixture, huma.API) {
	x := setup()
	a := httpd.NewAPI(x.mux, httpd.APIConfig{Title: "Test", Version: "1", ServerURL: "https://id.example"})
	op := huma.Operation{OperationID: "create-thing", Method: http.MethodPost, Path: "/v1/things", DefaultStatus: 201}
	huma.Register(a, op, func(_ context.Context, in *thingIn) (*thingOut, error) {
		if fail != nil {
			return nil, fail()
		}
		out := &thingOut{}
		out.Body.Name = in.Body.Name
		return out, nil
	})
	huma.Register(a, huma.Operation{OperationID: "delete-things", Method: http.MethodDelete, Path: "/v1/things"},
		func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
	return x, a
}

const goodThing = `{"name":"Kim","password":"correct horse"}`

// A refused value may be a password. It must not come back, nor reach a log, whatever was wrong with it.
func TestRefusedValuesAreNeverEchoed(t *testing.T) {
	t.Parallel()
	x, _ := api(nil)
	for _, tc := range []struct {
		body, field, code string
		status            int
	}{
		{`{"name":"Kim","password":"S3CRET"}`, "password", "too_short", 422},
		{`{"name":"Kim","password":"` + strings.Repeat("S3CRET", 20) + `"}`, "password", "too_long", 422},
		{`{"name":"Kim","password":{"S3CRET":"S3CRET"}}`, "password", "type", 422},
		{`{"name":"Kim","password":["S3CRET"]}`, "password", "type", 422},
		{`{"name":"Kim"}`, "password", "required", 422},
		{`{"name":"Kim","password":"long enough","extra":"S3CRET"}`, "extra", "unexpected", 422},
		{`{"name":"Kim","password":"long enough","PASSWORD":"S3CRET"}`, "PASSWORD", "unexpected", 422},
		{`{"name":"Kim","password":"long enough","email":"a@b.example, S3CRET <S3CRET@x.example>"}`, "email", "format", 422},
		{`{"name":"Kim","password":"long enough","email":"S3CRET"}`, "email", "format", 422},
		{`{"name":"Kim","password":"long enough","site":":S3CRET\u007f"}`, "site", "format", 422},
		{`{"name":"Kim","password":"long enough","id":"S3CRET"}`, "id", "format", 422},
		{`{"name":"Kim","password":"long enough","kind":"S3CRET"}`, "kind", "not_allowed", 422},
		{`{"name":"Kim","password":"long enough","pin":"S3CRET"}`, "pin", "format", 422},
		{`{"name":"Kim","password":"long enough","age":"S3CRET"}`, "age", "type", 422},
		{`{"name":"Kim","password":"long enough","age":31337}`, "body", "invalid", 422},
		{`{"name":"Kim","password":"long enough","tags":["S3CRET","S3CRET"]}`, "tags", "duplicate", 422},
		{`{"name":"Kim","password":"long enough","tags":["1","2","S3CRET"]}`, "tags", "too_long", 422},
		{`{"name":"Kim","password":"long enough","address":{}}`, "address.city", "required", 422},
		{`"S3CRET"`, "body", "type", 422},
		{`{"password":"S3CRET`, "", "", 400},
		{goodThing + `S3CRET`, "", "", 400},
		{``, "", "", 400},
	} {
		w := x.do(post("/v1/things", "application/json", tc.body))
		if w.Code != tc.status {
			t.Errorf("%s: %d %s", tc.body, w.Code, w.Body)
			continue
		}
		p := problemOf(t, w)
		if strings.Contains(w.Body.String(), "S3CRET") || strings.Contains(w.Body.String(), "31337") {
			t.Errorf("%s: echoed in %s", tc.body, w.Body)
		}
		if tc.field == "" {
			if p.Code != "request.malformed" {
				t.Errorf("%s: %+v", tc.body, p)
			}
			continue
		}
		if p.Code != "request.invalid" || len(p.Errors) != 1 || p.Errors[0].Name != tc.field || p.Errors[0].Code != tc.code || p.Errors[0].Message == "" {
			t.Errorf("%s: %+v", tc.body, p)
		}
	}
	if strings.Contains(x.log.String(), "S3CRET") {
		t.Error("values in the log")
	}
}

func TestOperationsSpeakJSONOnly(t *testing.T) {
	t.Parallel()
	x, _ := api(nil)
	for _, tc := range []struct {
		name, contentType, accept, code string
		status                          int
	}{
		{"plain", "application/json", "", "", 201},
		{"charset", "Application/JSON ; charset=utf-8", "text/html, */*;q=0.1", "", 201},
		{"merge patch", "application/merge-patch+json", "application/problem+json", "", 201},
		{"form", "application/x-www-form-urlencoded", "", "request.unsupported_media", 415},
		{"text", "text/plain", "", "request.unsupported_media", 415},
		{"none", "", "", "request.unsupported_media", 415},
		{"broken", "application/json; =", "", "request.unsupported_media", 415},
		{"asks for XML", "application/json", "application/xml", "request.not_acceptable", 406},
		{"refuses JSON", "application/json", "application/json;q=0", "request.not_acceptable", 406},
		{"hostile", "application/json", "a;,b", "request.not_acceptable", 406},
		{"hostile but willing", "application/json", "a;,b,application/json", "", 201},
		{"json is no media type", "application/json", "json, */*", "", 201},
	} {
		r := post("/v1/things", tc.contentType, goodThing)
		if tc.accept != "" {
			r.Header.Set("Accept", tc.accept)
		}
		w := x.do(r)
		if w.Code != tc.status {
			t.Errorf("%s: %d %s", tc.name, w.Code, w.Body)
			continue
		}
		if tc.code != "" {
			if p := problemOf(t, w); p.Code != tc.code {
				t.Errorf("%s: %+v", tc.name, p)
			}
		} else if w.Header().Get("Content-Type") != "application/json" || strings.TrimSpace(w.Body.String()) != `{"name":"Kim"}` {
			t.Errorf("%s: %v %s", tc.name, w.Header(), w.Body)
		}
	}
	if w := x.do(httptest.NewRequest(http.MethodDelete, "/v1/things", nil)); w.Code != 204 {
		t.Errorf("a request without body needs no media type: %d %s", w.Code, w.Body)
	}
	w := x.do(httptest.NewRequest(http.MethodPut, "/v1/things", nil))
	if p := problemOf(t, w); p.Status != 405 || w.Header().Get("Allow") != "DELETE, POST" {
		t.Errorf("%+v, Allow %q", p, w.Header().Get("Allow"))
	}
}

func TestOperationBodiesAreBounded(t *testing.T) {
	t.Parallel()
	for _, bound := range []int64{500, 10 << 20} {
		x := setup(func(c *httpd.Config) { c.MaxBody = bound })
		a := httpd.NewAPI(x.mux, httpd.APIConfig{Title: "Test", Version: "1"})
		huma.Register(a, huma.Operation{OperationID: "x", Method: http.MethodPost, Path: "/v1/things"},
			func(context.Context, *thingIn) (*thingOut, error) { return &thingOut{}, nil })
		for _, length := range []int64{-1, 2 << 20} {
			r := post("/v1/things", "application/json", `{"name":"`+strings.Repeat("x", 2<<20)+`"}`)
			r.ContentLength = length
			if p := problemOf(t, x.do(r)); p.Code != "request.too_large" || p.Status != 413 {
				t.Errorf("bound %d, length %d: %+v", bound, length, p)
			}
		}
	}
}

func TestOperationBodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	x, _ := api(nil)
	r := httptest.NewRequest(http.MethodPost, "/v1/things", io.MultiReader(strings.NewReader(`{"name":`), failingReader{}))
	r.Header.Set("Content-Type", "application/json")
	if p := problemOf(t, x.do(r)); p.Code != "request.body_unread" {
		t.Errorf("%+v", p)
	}
}

func TestOperationsFailWithFaults(t *testing.T) {
	t.Parallel()
	busy := fault.New(fault.Unavailable, "identity.busy", "Too many sign-ins at once.").After(1500 * time.Millisecond)
	for name, tc := range map[string]struct {
		err                         error
		status                      int
		code, retryAfter, challenge string
		logged                      string
	}{
		"fault": {errEnded.Challenge(`Bearer error="invalid_token"`), 401, "session.ended", "", `Bearer error="invalid_token"`, ""},
		"wrapped": {fmt.Errorf("sign in: %w", busy.Wrap(errors.New("queue full"))), 503, "identity.busy", "2", "",
			"sign in: identity.busy: Too many sign-ins at once.: queue full"},
		"internal":     {errors.New("row 7"), 500, "internal", "", "", "row 7"},
		"deadline":     {fmt.Errorf("query: %w", context.DeadlineExceeded), 504, "timeout", "5", "", "query: context deadline exceeded"},
		"huma's own":   {huma.Error404NotFound("no such thing"), 404, "request.not_found", "", "", ""},
		"huma's other": {huma.Error409Conflict("taken"), 409, "request.conflict", "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, _ := api(func() error { return tc.err })
			w := x.do(post("/v1/things", "application/json", goodThing))
			p := problemOf(t, w)
			if p.Status != tc.status || p.Code != tc.code || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") {
				t.Errorf("%+v", p)
			}
			if w.Header().Get("Retry-After") != tc.retryAfter || w.Header().Get("Www-Authenticate") != tc.challenge {
				t.Errorf("headers %v", w.Header())
			}
			if strings.Contains(w.Body.String(), "row 7") || strings.Contains(w.Body.String(), "queue full") {
				t.Errorf("the cause is shown: %s", w.Body)
			}
			e := x.log.event(t)
			logged, _ := e["error"].(string)
			if e["fault"] != tc.code || e["route"] != "/v1/things" || !strings.Contains(logged, tc.logged) || (logged == "") != (tc.logged == "") {
				t.Errorf("event %v", e)
			}
		})
	}
}

func TestRefuseFromAMiddleware(t *testing.T) {
	t.Parallel()
	x := setup()
	a := httpd.NewAPI(x.mux, httpd.APIConfig{Title: "Test", Version: "1"})
	a.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		if ctx.Header("Authorization") == "" {
			httpd.Refuse(a, ctx, errEnded.Challenge("Bearer"))
			return
		}
		next(ctx)
	})
	huma.Register(a, huma.Operation{OperationID: "x", Method: http.MethodGet, Path: "/v1/things"},
		func(context.Context, *struct{}) (*thingOut, error) { return nil, errors.New("reached") })
	w := x.do(httptest.NewRequest(http.MethodGet, "/v1/things", nil))
	if p := problemOf(t, w); p.Code != "session.ended" || w.Header().Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%+v %v", p, w.Header())
	}
	if e := x.log.event(t); e["fault"] != "session.ended" {
		t.Errorf("event %v", e)
	}
}

func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()
	x, _ := api(nil)
	var wg sync.WaitGroup
	for range 8 { // the first requests may come together
		wg.Go(func() { x.do(httptest.NewRequest(http.MethodGet, "/openapi.json", nil)) })
	}
	wg.Wait()
	w := x.do(httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var doc struct {
		OpenAPI string
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					}
				}
			}
		}
		Components struct {
			Schemas map[string]struct {
				Properties           map[string]json.RawMessage
				Required             []string
				AdditionalProperties *bool
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Servers) != 1 || doc.Servers[0].URL != "https://id.example" {
		t.Errorf("%+v", doc)
	}
	ref := doc.Paths["/v1/things"]["post"].Responses["default"].Content[fault.ContentType].Schema.Ref
	if ref != "#/components/schemas/Problem" {
		t.Errorf("errors are described by %q", ref)
	}
	p := doc.Components.Schemas["Problem"]
	for _, name := range []string{"type", "title", "status", "detail", "code", "request_id", "errors"} {
		if p.Properties[name] == nil {
			t.Errorf("problem documents lack %s: %s", name, w.Body)
		}
	}
	if !strings.Contains(fmt.Sprint(p.Required), "code") || doc.Components.Schemas["ProblemField"].Properties["message"] == nil {
		t.Errorf("%+v", doc.Components.Schemas)
	}
	if strings.Contains(w.Body.String(), "$schema") {
		t.Error("bodies take a $schema member")
	}
	if w := x.do(httptest.NewRequest(http.MethodGet, "/docs", nil)); w.Code != 404 {
		t.Error("huma's own documentation page loads scripts from elsewhere and must be off")
	}
}

func FuzzOperation(f *testing.F) {
	f.Add("application/json", "*/*", goodThing, "limit=1")
	f.Add("application/json", "a;,b", `{"name":1}`, "limit=x&limit=")
	f.Add("application/x+json", ";q=", `[]`, "%zz")
	x, _ := api(nil)
	f.Fuzz(func(t *testing.T, contentType, accept, body, query string) {
		r := post("/v1/things", contentType, body)
		r.Header.Set("Accept", accept)
		r.URL.RawQuery = query
		switch w := x.do(r); w.Code {
		case 201, 400, 406, 413, 415, 422:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	})
}
