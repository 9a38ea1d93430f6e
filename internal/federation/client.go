package federation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// maxAnswer bounds what a provider may send, in bytes.
const maxAnswer = 1 << 20

// newClient returns the client for every request to providers: bounded in time and size, and never redirected, since what it carries
// is for the address that was configured or discovered.
func newClient(timeout time.Duration, transport http.RoundTripper) *http.Client {
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxResponseHeaderBytes = 64 << 10
		transport = t
	}
	return &http.Client{
		Timeout: timeout, Transport: bounded{transport},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// bounded refuses bodies larger than maxAnswer.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// link is what every provider has: its configuration, where it sends people back to, and how it is reached.
type link struct {
	cfg      Provider
	redirect string
	http     *http.Client
	clock    func() time.Time
}

// reach puts the client where the libraries look for it.
func (l link) reach(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, l.http)
}

// identity begins what a provider says of a person.
func (l link) identity(subject string) Identity {
	return Identity{Provider: l.cfg.Name, Authority: l.cfg.Issuer, Subject: subject}
}

// redeem trades a code for tokens.
func (l link) redeem(ctx context.Context, c oauth2.Config, code string, options ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
	t, err := c.Exchange(l.reach(ctx), code, options...)
	if err != nil {
		return nil, redeemFault(err)
	}
	return t, nil
}

// expiredCodes are the errors by which providers say that a code has expired or was used: RFC 6749, and GitHub's own.
var expiredCodes = map[string]bool{"invalid_grant": true, "bad_verification_code": true}

// redeemFault says what a failed exchange means to the person. What providers write in words is not passed on.
func redeemFault(err error) error {
	var refused *oauth2.RetrieveError
	switch {
	case !errors.As(err, &refused):
		var unreached *url.Error
		if errors.As(err, &unreached) {
			return outage(err)
		}
		return ErrAnswer.Wrap(err) // it came, and cannot be read
	case expiredCodes[refused.ErrorCode]:
		return ErrExpired.Wrap(brief(refused))
	case refused.Response != nil && (refused.Response.StatusCode >= 500 || refused.Response.StatusCode == http.StatusTooManyRequests),
		refused.ErrorCode == "temporarily_unavailable", refused.ErrorCode == "server_error":
		return ErrUnavailable.Wrap(brief(refused))
	}
	return ErrRefused.Wrap(brief(refused))
}

// brief is a refusal without its body, which can hold what must not be logged.
func brief(e *oauth2.RetrieveError) error {
	status := 0
	if e.Response != nil {
		status = e.Response.StatusCode
	}
	code := e.ErrorCode
	if len(code) > 64 {
		code = code[:64]
	}
	return fmt.Errorf("the provider answered %d %q", status, code)
}

// outage is a provider that cannot be reached, or answers what nobody can read.
func outage(err error) error {
	var syntax *json.SyntaxError
	var large *http.MaxBytesError
	if errors.As(err, &syntax) || errors.As(err, &large) {
		return ErrAnswer.Wrap(err)
	}
	return ErrUnavailable.Wrap(err)
}

// get reads JSON from an API of the provider, as the person that the token is for.
func (l link) get(ctx context.Context, address, token string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	resp, err := l.http.Do(req)
	if err != nil {
		return outage(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return outage(err)
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return ErrUnavailable.Wrap(fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode))
	case resp.StatusCode != http.StatusOK:
		return ErrRefused.Wrap(fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode))
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(into); err != nil {
		return ErrAnswer.Wrap(fmt.Errorf("%s: %w", req.URL.Host, err))
	}
	return nil
}
