package httpd

import (
	"net/http"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
)

// isAPI reports whether a path belongs to the JSON API, whose every answer is JSON.
func isAPI(path string) bool { return path == "/v1" || strings.HasPrefix(path, "/v1/") }

// Routes serves mux and answers what no pattern matches as a fault: an unknown path as ErrNotFound, a known path with a method it
// does not have as ErrMethodNotAllowed with an Allow header. Below /v1, and everywhere when render is nil, that is a
// problem document; elsewhere render answers, as in WithErrors. For the latter to work, mux must have no pattern that
// catches everything.
func Routes(mux *http.ServeMux, render func(w http.ResponseWriter, r *http.Request, f *fault.Fault)) http.Handler {
	problem := Handler(func(w http.ResponseWriter, r *http.Request) error { return unmatched(mux, w, r) })
	page := http.Handler(problem)
	if render != nil {
		page = WithErrors(render, problem)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(r)
		if x := exchangeOf(r.Context()); x != nil {
			x.route = pattern
		}
		switch {
		case pattern != "":
			mux.ServeHTTP(w, r)
		case isAPI(r.URL.Path):
			problem.ServeHTTP(w, r)
		default:
			page.ServeHTTP(w, r)
		}
	})
}

// unmatched asks mux why nothing matched.
func unmatched(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) error {
	verdict := verdict{header: http.Header{}}
	h, _ := mux.Handler(r)
	h.ServeHTTP(&verdict, r)
	if verdict.status != http.StatusMethodNotAllowed {
		return ErrNotFound
	}
	w.Header().Set("Allow", verdict.header.Get("Allow"))
	return ErrMethodNotAllowed
}

// verdict keeps status and header of an answer and drops the rest.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header         { return v.header }
func (v *verdict) WriteHeader(status int)      { v.status = status }
func (v *verdict) Write(p []byte) (int, error) { return len(p), nil }
