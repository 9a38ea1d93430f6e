package app

import (
	_ "embed" // the list of errors
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/web"
)

// mountReference adds the readable pages about the API and its errors. It is called after all operations are known.
func mountReference(mux *http.ServeMux, api huma.API, pages *web.Renderer) error {
	document, err := json.Marshal(api.OpenAPI())
	if err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	reference, err := web.NewAPIReference(document)
	if err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	entries, err := errorEntries()
	if err != nil {
		return err
	}
	for pattern, page := range map[string]web.Page{
		"GET /docs": reference, "GET /docs/errors": web.ErrorReference{Errors: entries},
	} {
		mux.Handle(pattern, httpd.WithErrors(pages.Fault, func(w http.ResponseWriter, r *http.Request) error {
			return pages.Page(w, r, http.StatusOK, page)
		}))
	}
	return nil
}

// errorsJSON is generated from the declarations of faults in the source (test/reference), so that no code is missing.
//
//go:embed errors.json
var errorsJSON []byte

// errorEntries lists every code that a problem document can carry, in alphabetical order.
func errorEntries() ([]web.ErrorEntry, error) {
	var declared []struct {
		Code    string `json:"code"`
		Status  int    `json:"status"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(errorsJSON, &declared); err != nil {
		return nil, fmt.Errorf("read the list of errors: %w", err)
	}
	entries := make([]web.ErrorEntry, len(declared))
	for i, d := range declared {
		entries[i] = web.ErrorEntry(d)
	}
	return entries, nil
}
