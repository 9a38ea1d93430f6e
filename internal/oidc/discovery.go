package oidc

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/identity"
)

// provider describes the provider to clients (RFC 8414, section 2; OpenID Connect Discovery 1.0, section 3).
type provider struct {
	Issuer        string   `json:"issuer"`
	Authorization string   `json:"authorization_endpoint"`
	TokenEndpoint string   `json:"token_endpoint"`
	UserInfo      string   `json:"userinfo_endpoint"`
	Introspection string   `json:"introspection_endpoint"`
	Revocation    string   `json:"revocation_endpoint"`
	EndSession    string   `json:"end_session_endpoint"`
	Pushed        string   `json:"pushed_authorization_request_endpoint"`
	Device        string   `json:"device_authorization_endpoint"`
	Registration  string   `json:"registration_endpoint,omitempty"`
	JWKSURI       string   `json:"jwks_uri"`
	GrantTypes    []string `json:"grant_types_supported"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	SigningAlgs   []string `json:"id_token_signing_alg_values_supported"`
	UserInfoAlgs  []string `json:"userinfo_signing_alg_values_supported"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	Scopes        []string `json:"scopes_supported"`
	AssertionAlgs []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	DPoPAlgs      []string `json:"dpop_signing_alg_values_supported,omitempty"`
	Claims        []string `json:"claims_supported"`
	ResponseModes []string `json:"response_modes_supported"`
	Challenges    []string `json:"code_challenge_methods_supported"`
	Prompts       []string `json:"prompt_values_supported"`
	Locales       []string `json:"ui_locales_supported"`
	Displays      []string `json:"display_values_supported"`
	ACRs          []string `json:"acr_values_supported"`
	ClaimTypes    []string `json:"claim_types_supported"`
	RequestAlgs   []string `json:"request_object_signing_alg_values_supported"`

	Aliases           map[string]string `json:"mtls_endpoint_aliases,omitempty"`
	CertificateBound  bool              `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	IntrospectionAlgs []string          `json:"introspection_signing_alg_values_supported"`

	IntrospectionAuth []string `json:"introspection_endpoint_auth_methods_supported"`
	RevocationAuth    []string `json:"revocation_endpoint_auth_methods_supported"`

	IssuerInAnswer     bool `json:"authorization_response_iss_parameter_supported"`
	ClaimsParameter    bool `json:"claims_parameter_supported"`
	RequestParameter   bool `json:"request_parameter_supported"`
	RequestURI         bool `json:"request_uri_parameter_supported"`
	BackchannelLogout  bool `json:"backchannel_logout_supported"`
	BackchannelSession bool `json:"backchannel_logout_session_supported"`

	FrontchannelLogout  bool `json:"frontchannel_logout_supported"`
	FrontchannelSession bool `json:"frontchannel_logout_session_supported"`

	ServiceDocs string `json:"service_documentation"`
	Revocations string `json:"sumun_revocations_endpoint"`
}

func (s *Service) describe() provider {
	at := func(path string) string { return s.deps.Issuer + path }
	var grants []string
	for name := range s.grants {
		if name != LegacyPassword { // nobody should begin to use it
			grants = append(grants, name)
		}
	}
	slices.Sort(grants)
	registration := ""
	if s.cfg.Registration {
		registration = at(registerPath)
	}
	return provider{
		Registration: registration,
		Issuer:       s.deps.Issuer, Authorization: at(authorizePath), TokenEndpoint: at(tokenPath), UserInfo: at(userInfoPath),
		Introspection: at(introspectPath), Revocation: at(revokePath), EndSession: at(logoutPath),
		Pushed: at(parPath), Device: at(deviceEndpoint), JWKSURI: at("/.well-known/jwks.json"),
		GrantTypes: grants, ResponseTypes: []string{"code"}, SubjectTypes: []string{SubjectPublic, SubjectPairwise}, SigningAlgs: []string{s.deps.Tokens.Algorithm()},
		UserInfoAlgs: []string{s.deps.Tokens.Algorithm()},
		Scopes:       personalScopes, Claims: claimNames(), ClaimTypes: []string{"normal"}, ACRs: []string{identity.ACR},
		Displays: []string{"page", "popup", "touch"}, RequestParameter: true, RequestAlgs: assertionMethods,
		ResponseModes: []string{modeQuery, modeFragment, modeFormPost}, Challenges: []string{"S256"},
		Prompts: []string{"none", "login", "consent", "select_account"}, Locales: []string{"en", "ko"},
		IntrospectionAuth: slices.DeleteFunc(s.methods(), func(name string) bool { return name == AuthNone }), RevocationAuth: s.methods(),
		Aliases: s.aliases(), CertificateBound: s.deps.Certificates, IntrospectionAlgs: []string{s.deps.Tokens.Algorithm()},
		IssuerInAnswer: true, ClaimsParameter: true, BackchannelLogout: true, BackchannelSession: true,
		FrontchannelLogout: true, FrontchannelSession: true,
		AuthMethods: s.methods(), AssertionAlgs: assertionMethods, DPoPAlgs: []string{auth.ES256, auth.EdDSA, auth.RS256}, ServiceDocs: at("/docs"), Revocations: at("/v1/revocations"),
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
