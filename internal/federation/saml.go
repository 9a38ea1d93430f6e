package federation

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"
)

// samlProvider is a company's identity provider, for which this installation is a service provider (SAML 2.0, Web Browser SSO
// Profile, saml-profiles section 4.1). Requests are signed and go by redirect, responses come by POST; what the identity provider
// did not begin at our request is refused. Encrypted assertions, artifacts and single logout are not spoken.
type samlProvider struct {
	link
	entity string // ours

	mu      sync.Mutex // held while one request asks, so that others do not
	found   *saml.EntityDescriptor
	at      time.Time // of the last attempt to read the metadata
	failure error
}

func newSAML(l link) provider {
	return &samlProvider{link: l, entity: strings.TrimSuffix(l.redirect, "callback") + "metadata"}
}

// metadataPause is how long at least lies between two looks at an identity provider's metadata, whoever asks.
const metadataPause = 10 * time.Second

// peer returns the identity provider's metadata, read again after discoveryLifetime, or at once where renew says that a key is
// missing. While it cannot be read again, the one before stands.
func (s *samlProvider) peer(ctx context.Context, renew bool) (*saml.EntityDescriptor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.clock().Sub(s.at)
	if s.at.IsZero() || age >= discoveryLifetime || (renew || s.found == nil) && age >= metadataPause {
		found, err := s.readMetadata(context.WithoutCancel(ctx))
		s.at, s.failure = s.clock(), err
		if err == nil {
			s.found = found
		}
	}
	if s.found == nil {
		return nil, s.failure
	}
	if until := s.found.ValidUntil; !until.IsZero() && s.clock().After(until) {
		return nil, ErrRefused.Wrap(fmt.Errorf("the metadata of %s was valid until %v", s.cfg.Name, until))
	}
	return s.found, nil
}

func (s *samlProvider) readMetadata(ctx context.Context) (*saml.EntityDescriptor, error) {
	var text []byte
	var err error
	if s.cfg.MetadataFile != "" {
		text, err = os.ReadFile(s.cfg.MetadataFile)
	} else {
		text, err = s.fetchMetadata(ctx)
	}
	if err != nil {
		return nil, ErrUnavailable.Wrap(fmt.Errorf("metadata of %s: %w", s.cfg.Name, err))
	}
	found, err := parseMetadata(text, s.cfg.Issuer)
	if err != nil {
		return nil, ErrRefused.Wrap(fmt.Errorf("metadata of %s: %w", s.cfg.Name, err))
	}
	return found, nil
}

func (s *samlProvider) fetchMetadata(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.MetadataURL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// requestID is what a response to this flow names. It is bound to the browser, and no more guessable than the nonce.
func (f flow) requestID() string { return "_" + f.Nonce } // an xs:ID does not begin with a digit

func (s *samlProvider) begin(ctx context.Context, f flow) (string, error) {
	peer, err := s.peer(ctx, false)
	if err != nil {
		return "", err
	}
	to := ssoAddress(peer)
	if to == "" {
		return "", ErrRefused.Wrap(fmt.Errorf("the metadata of %s names no https address for requests by redirect", s.cfg.Name))
	}
	request := saml.AuthnRequest{
		ID: f.requestID(), Version: "2.0", IssueInstant: s.clock().UTC(), Destination: to,
		Issuer:                      &saml.Issuer{Value: s.entity},
		AssertionConsumerServiceURL: s.redirect, ProtocolBinding: saml.HTTPPostBinding,
	}
	if f.Intent == intentReauthenticate {
		again := true
		request.ForceAuthn = &again
	}
	query, err := s.signedQuery(request.Element(), f.State)
	if err != nil {
		return "", err
	}
	separator := "?"
	if strings.Contains(to, "?") {
		separator = "&"
	}
	return to + separator + query, nil
}

// signedQuery is a request in the HTTP-Redirect binding (saml-bindings section 3.4.4.1). What is signed is these parameters, in this
// order, and nothing that the address may have besides.
func (s *samlProvider) signedQuery(request *etree.Element, relayState string) (string, error) {
	doc := etree.NewDocument()
	doc.SetRoot(request)
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.DefaultCompression)
	if err != nil {
		return "", err
	}
	if _, err := doc.WriteTo(w); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	query := "SAMLRequest=" + url.QueryEscape(base64.StdEncoding.EncodeToString(packed.Bytes())) +
		"&RelayState=" + url.QueryEscape(relayState) + "&SigAlg=" + url.QueryEscape(dsig.RSASHA256SignatureMethod)
	key, err := parseRSAKey(s.cfg.Key)
	if err != nil {
		return "", fmt.Errorf("key of %s: %w", s.cfg.Name, err)
	}
	digest := crypto.SHA256.New()
	digest.Write([]byte(query))
	signature, err := key.Sign(nil, digest.Sum(nil), crypto.SHA256)
	if err != nil {
		return "", err
	}
	return query + "&Signature=" + url.QueryEscape(base64.StdEncoding.EncodeToString(signature)), nil
}

// expects names nobody: a response names its issuer within what is signed.
func (s *samlProvider) expects(context.Context) (string, bool, error) { return "", false, nil }

// receive verifies a posted response. Whether it answers this browser's request is for finish, which sees the browser.
func (s *samlProvider) receive(ctx context.Context, form url.Values) (answer, error) {
	state, encoded := form["RelayState"], form["SAMLResponse"]
	if len(state) != 1 || len(state[0]) > maxRelayState || len(encoded) != 1 {
		return answer{}, ErrState
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded[0]), ""))
	if err != nil {
		return answer{}, ErrAnswer.Wrap(errors.New("the response is not base64"))
	}
	r, err := readResponse(raw)
	if err != nil {
		return answer{}, ErrAnswer.Wrap(err)
	}
	if r.inResponseTo == "" {
		return answer{}, ErrState.Wrap(errors.New("the identity provider sent what nobody had asked for"))
	}
	if refused := r.refusal(); refused != "" {
		return answer{State: state[0], Error: refused}, nil // tells nothing but that there is nothing to tell
	}
	said, err := s.verify(ctx, r)
	if err != nil {
		return answer{}, err
	}
	return answer{State: state[0], Said: said}, nil
}

// maxRelayState is the bound of saml-bindings section 3.4.3, in bytes.
const maxRelayState = 80

// verify looks for new keys before it gives up on a signature.
func (s *samlProvider) verify(ctx context.Context, r *response) (*statement, error) {
	peer, err := s.peer(ctx, false)
	if err != nil {
		return nil, err
	}
	assertion, err := s.signed(r, peer)
	if err != nil {
		renewed, renewErr := s.peer(ctx, true)
		if renewErr != nil || renewed == peer {
			return nil, ErrAnswer.Wrap(err)
		}
		if assertion, err = s.signed(r, renewed); err != nil {
			return nil, ErrAnswer.Wrap(err)
		}
	}
	said, err := s.believe(assertion)
	if err != nil {
		return nil, ErrAnswer.Wrap(err)
	}
	return said, nil
}

// finish takes the statement that receive has verified, in the browser whose request it answers.
func (s *samlProvider) finish(_ context.Context, f flow, a answer) (Identity, error) {
	said := a.Said
	switch {
	case said == nil || said.Identity.Provider != s.cfg.Name || said.InResponseTo != f.requestID():
		return Identity{}, ErrState
	case !s.clock().Before(said.Until):
		return Identity{}, ErrExpired
	case f.Intent == intentReauthenticate && said.Authenticated.Before(f.Began.Add(-samlSkew)):
		return Identity{}, ErrDenied.Wrap(errors.New("the person was not asked again"))
	}
	return said.Identity, nil
}
