package oidc

import (
	"net/http"
)

const (
	tokenEndpoint = "token"
	tokenPath     = "/oauth/token"
)

// CrossOrigin lists the endpoints, as patterns of http.ServeMux, that other origins may call with unsafe methods: they take their
// proof in the request, and neither set nor read a cookie.
func CrossOrigin() []string { return []string{"POST " + tokenPath} }

// Mount adds the endpoints.
func (s *Service) Mount(mux *http.ServeMux) {
	mux.Handle("POST "+tokenPath, s.endpoint(tokenEndpoint, s.token))
	mux.HandleFunc("GET /.well-known/openid-configuration", s.discovery.serve)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", s.discovery.serve)
}
