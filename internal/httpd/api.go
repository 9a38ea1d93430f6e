package httpd

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sumunio/sumun/internal/fault"
)

// APIConfig describes an API in its OpenAPI document.
type APIConfig struct {
	Title, Version string
	// ServerURL is where clients reach the API, such as https://id.example.com; empty leaves it out.
	ServerURL string
}

// NewAPI returns a huma API whose operations are served by mux and described by an OpenAPI 3.1 document at /openapi.json.
// The document may be edited, through OpenAPI, until it is first served.
//
// Operations take and answer JSON. Errors they return, and huma's own, are answered and recorded as a Handler's are; where
// values are refused, the problem document names the fields and never repeats a value. Unknown members are refused, in
// their exact spelling: encoding/json would fill "password" from "PASSWORD" behind the validation's back. So are two members
// of one name, of which it would take the last. Bodies are bounded by Chain and by the operation's MaxBodyBytes (1 MiB).
func NewAPI(mux *http.ServeMux, cfg APIConfig) huma.API {
	adjustHuma()
	c := huma.DefaultConfig(cfg.Title, cfg.Version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format} // the latter for application/problem+json
	c.CreateHooks = nil                                                            // they would add a $schema member to every body
	c.Transformers = []huma.Transformer{answerProblem}
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	if cfg.ServerURL != "" {
		c.Servers = []*huma.Server{{URL: cfg.ServerURL}}
	}
	api := humago.New(apiMux{mux}, c)
	serveOpenAPI(mux, api)
	return api
}

// Refuse answers err from a huma middleware, which then must not call next.
func Refuse(api huma.API, ctx huma.Context, err error) {
	// The error it returns is about the connection; response has noted it.
	_ = huma.WriteErr(api, ctx, http.StatusInternalServerError, "", err)
}

// adjustHuma sets the package variables by which huma is customised. There is no other way, and the values are the same for
// every API of the process.
var adjustHuma = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return newProblem(context.Background(), status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return newProblem(ctx.Context(), status, msg, errs)
	}
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false // operations answer empty lists as [], and refuse null
})

// apiMux negotiates before huma sees a request: huma would run an operation whose answer is not acceptable, take a body
// without a media type for JSON, and panic on some malformed Accept headers.
type apiMux struct{ *http.ServeMux }

func (m apiMux) HandleFunc(pattern string, operation func(http.ResponseWriter, *http.Request)) {
	m.Handle(pattern, Handler(func(w http.ResponseWriter, r *http.Request) error {
		if !acceptsJSON(r.Header) {
			return ErrNotAcceptable
		}
		if r.ContentLength != 0 && !isJSON(r.Header.Get("Content-Type")) {
			return ErrUnsupportedMedia
		}
		r.Header.Set("Accept", "application/json")
		r.Header.Set("Content-Type", "application/json")
		operation(w, r)
		return nil
	}))
}

// problem is a fault in the form huma asks for. Its embedded document gives the OpenAPI schema.
type problem struct {
	fault.Problem
	fault *fault.Fault
	cause error // with everything that was wrapped around the fault
}

func (p *problem) Error() string             { return p.cause.Error() }
func (p *problem) Unwrap() error             { return p.cause }
func (p *problem) GetStatus() int            { return p.fault.Status() }
func (p *problem) ContentType(string) string { return fault.ContentType }

// answerProblem is the transformer that every answer passes just before its header is written.
func answerProblem(ctx huma.Context, _ string, v any) (any, error) {
	p, ok := v.(*problem)
	if !ok {
		return v, nil
	}
	note(ctx.Context(), p.cause, p.fault)
	h := http.Header{}
	p.fault.SetHeaders(h)
	h.Set("Cache-Control", "no-store")
	for name := range h {
		ctx.SetHeader(name, h.Get(name))
	}
	return p.fault.Problem(RequestID(ctx.Context())), nil
}

// schemaName gives the members of a problem document a name of their own, lest a domain's Field collide with it.
func schemaName(t reflect.Type, hint string) string {
	if t == reflect.TypeFor[fault.Field]() {
		return "ProblemField"
	}
	return huma.DefaultSchemaNamer(t, hint)
}

// serveOpenAPI serves the document; huma's own route builds it lazily without a lock.
func serveOpenAPI(mux *http.ServeMux, api huma.API) {
	document := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	mux.Handle("GET /openapi.json", Handler(func(w http.ResponseWriter, _ *http.Request) error {
		body, err := document()
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write(body)
		return nil
	}))
}
