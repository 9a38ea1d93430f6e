package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/identity"
	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/web"
)

// Config is with whose word people may sign in.
type Config struct {
	Timeout           time.Duration `yaml:"timeout" doc:"How long one request to a provider may take. Shorter than http.request_timeout, so that people get an answer."`
	RequestsPerClient int           `yaml:"requests_per_client" doc:"Sign-ins begun and answers brought from one network address (IPv6: one /64), per minute; half of them at once."`
	Providers         []Provider    `yaml:"providers" doc:"The providers, in the order of their buttons."`
}

// Kind says how a provider is talked to.
type Kind string

// The kinds of providers.
const (
	KindOIDC   Kind = "oidc"
	KindGoogle Kind = "google"
	KindKakao  Kind = "kakao"
	KindNaver  Kind = "naver"
	KindApple  Kind = "apple"
	KindGitHub Kind = "github"
	KindSAML   Kind = "saml"
)

// Provider is one provider.
type Provider struct {
	Name         string         `yaml:"name" doc:"What addresses and the database call it: a-z, 0-9 and -. The redirect address to register is /federation/NAME/callback below the issuer. Another name, or another client at Kakao, Naver or Apple, is another provider: nobody stays connected."`
	Kind         Kind           `yaml:"kind" doc:"google, kakao, naver, apple, github, saml for a company's identity provider that speaks SAML 2.0, or oidc for any other OpenID provider. Empty: as the name says, else oidc."`
	Label        string         `yaml:"label" doc:"What people call it. Empty: its usual name."`
	Issuer       string         `yaml:"issuer" doc:"With oidc the provider's issuer, as its discovery document has it; with github the address of an Enterprise Server; with saml the entity id of the identity provider. Otherwise known."`
	ClientID     string         `yaml:"client_id" doc:"The client that it knows this installation as; not with saml."`
	ClientSecret keyring.Secret `yaml:"client_secret" doc:"The client's secret; not with apple and saml."`
	Scopes       []string       `yaml:"scopes" doc:"What is asked for. Empty: what is needed."`
	TeamID       string         `yaml:"team_id" doc:"With apple: the team."`
	KeyID        string         `yaml:"key_id" doc:"With apple: the id of the key."`
	Key          keyring.Secret `yaml:"key" doc:"With apple: the private key, the content of the .p8 file. With saml: the RSA key in PEM that signs requests."`

	MetadataURL  string     `yaml:"metadata_url" doc:"With saml: where the identity provider publishes its metadata. It is read again every hour, and when a signature needs a new key."`
	MetadataFile string     `yaml:"metadata_file" doc:"With saml: a file with that metadata, instead of metadata_url."`
	EmailDomains []string   `yaml:"email_domains" doc:"With saml, which has no word for it: addresses in these mail domains count as verified by the identity provider."`
	Attributes   Attributes `yaml:"attributes" doc:"With saml: in which attributes the identity provider tells about people."`

	SignUp            bool `yaml:"sign_up" doc:"Whether people without an account can get one in this way."`
	LinkVerifiedEmail bool `yaml:"link_verified_email" doc:"Whether an address that the provider has verified opens the account whose confirmed address it is, without its owner having connected the two. Whoever runs the provider, or takes over the address there, then gets into the account."`
}

// Attributes are names, or friendly names, of SAML attributes.
type Attributes struct {
	Subject string `yaml:"subject" doc:"What names a person for ever. Empty: the NameID, which must not be transient."`
	Email   string `yaml:"email" doc:"The mail address. Empty: the usual names of it, else a NameID that is one."`
	Name    string `yaml:"name" doc:"The name. Empty: the usual names of it."`
}

// SetDefaults fills in what a provider is before anything of it is read.
func (p *Provider) SetDefaults() { p.SignUp = true }

// DefaultConfig has no providers.
func DefaultConfig() Config { return Config{Timeout: 5 * time.Second, RequestsPerClient: 600} }

// usual is what is known of a kind of provider.
var usual = map[Kind]struct{ label, issuer string }{
	KindOIDC:   {},
	KindGoogle: {"Google", "https://accounts.google.com"},
	KindKakao:  {"Kakao", "https://kauth.kakao.com"},
	KindNaver:  {"Naver", "https://nid.naver.com"},
	KindApple:  {"Apple", "https://appleid.apple.com"},
	KindGitHub: {"GitHub", "https://github.com"},
	KindSAML:   {},
}

// complete fills in what was left empty.
func (p Provider) complete() Provider {
	if _, named := usual[Kind(p.Name)]; p.Kind == "" && named {
		p.Kind = Kind(p.Name)
	}
	if p.Kind == "" {
		p.Kind = KindOIDC
	}
	if p.Label == "" {
		p.Label = usual[p.Kind].label
	}
	if p.Label == "" {
		p.Label = p.Name
	}
	if p.Issuer == "" {
		p.Issuer = usual[p.Kind].issuer
	}
	return p
}

// Buttons are what pages show of the providers.
func (c Config) Buttons() []web.Provider {
	var all []web.Provider
	for _, p := range c.Providers {
		p = p.complete()
		all = append(all, web.Provider{Name: p.Name, Label: p.Label})
	}
	return all
}

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	if c.Timeout <= 0 || c.Timeout > time.Minute {
		errs = append(errs, fmt.Errorf("timeout: %v is not between 1ms and 1m; use a value such as 5s", c.Timeout))
	}
	if c.RequestsPerClient < 1 {
		errs = append(errs, fmt.Errorf("requests_per_client: %d is below 1; to switch every limit off use limits: off", c.RequestsPerClient))
	}
	seen := map[string]bool{}
	for i, p := range c.Providers {
		key := fmt.Sprintf("providers[%d]", i)
		if seen[p.Name] {
			errs = append(errs, fmt.Errorf("%s.name: there are two providers %q; name them differently", key, p.Name))
		}
		seen[p.Name] = true
		errs = append(errs, p.complete().validate(key))
	}
	return errors.Join(errs...)
}

var providerName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func (p Provider) validate(key string) error {
	var errs []error
	wrong := func(member, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s.%s: %s", key, member, fmt.Sprintf(format, args...)))
	}
	if !providerName.MatchString(p.Name) {
		wrong("name", "%q is not a word of a-z, 0-9 and -, such as google", p.Name)
	}
	if _, known := usual[p.Kind]; !known {
		wrong("kind", "%q is none of oidc, google, kakao, naver, apple, github, saml", p.Kind)
		return errors.Join(errs...)
	}
	if p.Label != identity.CleanName(p.Label) {
		wrong("label", "%q holds what cannot be shown", p.Label)
	}
	if p.Kind == KindSAML {
		return errors.Join(append(errs, p.validateSAML(key))...)
	}
	if p.ClientID == "" {
		wrong("client_id", "empty; register this installation with the provider and enter the client's id")
	}
	if err := checkIssuer(p.Issuer); err != nil {
		wrong("issuer", "%q %v", p.Issuer, err)
	}
	switch {
	case p.Kind == KindApple:
		if p.TeamID == "" || p.KeyID == "" {
			wrong("team_id", "empty, or key_id is; both are shown where the key was made")
		}
		if _, err := parseKey(p.Key); err != nil {
			wrong("key", "%v", err)
		}
	case p.Kind != KindKakao && p.Kind != KindOIDC && p.ClientSecret == "":
		wrong("client_secret", "empty; the provider shows it with the client")
	}
	return errors.Join(errs...)
}

// checkIssuer accepts https addresses, and http ones of this very machine, for trying out.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case issuer == "":
		return errors.New("is empty; enter the provider's issuer, such as https://id.example.com")
	case err != nil, u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("is not the address of an issuer; write it like https://id.example.com")
	case u.Scheme != "https" && (u.Scheme != "http" || !httpd.IsLoopbackHost(u.Hostname())):
		return errors.New("is not encrypted; use https")
	}
	return nil
}

// parseKey reads Apple's .p8: a PKCS #8 key on P-256. Its errors do not repeat the text.
func parseKey(text keyring.Secret) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(strings.TrimSpace(text.Reveal())))
	if block == nil {
		return nil, errors.New("not a PEM file; give the .p8 file with key_file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a private key in PKCS #8; give the .p8 file as it was downloaded")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not a key on P-256; give the .p8 file as it was downloaded")
	}
	return key, nil
}
