package oidc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

// provider describes the provider to clients (RFC 8414, section 2; OpenID Connect Discovery 1.0, section 3).
type provider struct {
	Issuer        string   `json:"issuer"`
	TokenEndpoint string   `json:"token_endpoint"`
	JWKSURI       string   `json:"jwks_uri"`
	GrantTypes    []string `json:"grant_types_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	ServiceDocs   string   `json:"service_documentation"`
	Revocations   string   `json:"sumun_revocations_endpoint"`
}

func (s *Service) describe() provider {
	at := func(path string) string { return s.deps.Issuer + path }
	var grants []string
	for name := range s.grants {
		grants = append(grants, name)
	}
	slices.Sort(grants)
	return provider{
		Issuer: s.deps.Issuer, TokenEndpoint: at(tokenPath), JWKSURI: at("/.well-known/jwks.json"),
		GrantTypes: grants, ResponseTypes: []string{}, SubjectTypes: []string{"public"}, SigningAlgs: []string{"ES256", "EdDSA", "RS256"},
		AuthMethods: authMethods, ServiceDocs: at("/docs"), Revocations: at("/v1/revocations"),
	}
}

// document is JSON that does not change while the program runs, served from memory.
type document struct {
	body []byte
	etag string
}

func newDocument(v any) (document, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return document{}, err
	}
	sum := sha256.Sum256(body)
	return document{body, `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`}, nil
}

func (d document) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "public, max-age=300")
	h.Set("ETag", d.etag)
	h.Set("Access-Control-Allow-Origin", "*") // it is public
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
}
