package oidc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
)

// errorBody is a refusal as clients of the standard know it (RFC 6749, section 5.2).
type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// errorName is the error of RFC 6749 for a fault. Its own are named by the last word of their codes; what is not about the request
// is a server's failure (section 4.1.2.1), for which clients come again.
func errorName(f *fault.Fault) string {
	name, ours := strings.CutPrefix(f.Code(), "oidc.")
	switch f.Kind() {
	case fault.Unavailable, fault.Timeout, fault.RateLimited:
		return "temporarily_unavailable"
	case fault.Internal:
		return "server_error"
	case fault.Malformed, fault.Unauthenticated, fault.Forbidden:
		if ours {
			return name
		}
	}
	return "invalid_request"
}

// renderError answers a refusal.
func renderError(w http.ResponseWriter, _ *http.Request, f *fault.Fault) {
	if f.Kind() == fault.Unauthenticated && f.WWWAuthenticate() == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="sumun"`)
	}
	body, err := json.Marshal(errorBody{errorName(f), plain(f.Message())})
	if err != nil { // cannot be: two strings
		http.Error(w, f.Message(), f.Status())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.Status())
	_, _ = w.Write(body) // who asked may have gone
}

// plain keeps the characters that a description may have (RFC 6749, section 5.2).
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, text)
}

// writeAnswer writes an answer that nobody may keep (RFC 6749, section 5.1).
func writeAnswer(w http.ResponseWriter, status int, answer any) error {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Pragma", "no-cache")
	if answer == nil {
		w.WriteHeader(status)
		return nil
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
	return nil
}
