package oidc

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/ratelimit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/web"
)

const (
	deviceEndpoint = "/oauth/device_authorization"
	devicePath     = "/oauth/device"

	// GrantDevice is the grant of devices on which nobody can type (RFC 8628).
	GrantDevice = "urn:ietf:params:oauth:grant-type:device_code"

	// deviceLifetime is how long a person has to agree, devicePause how often a device may ask whether they have.
	deviceLifetime = 10 * time.Minute
	devicePause    = 5 * time.Second
	slowDown       = 5 * time.Second // what is added for who asks faster (section 3.5)

	// userAlphabet has no vowels, so that codes make no words, and nothing that looks like something else (section 6.1).
	userAlphabet = "BCDFGHJKLMNPQRSTVWXZ"
	userLength   = 8
)

const (
	insertDevice = `INSERT INTO oauth_devices (hash, user_code, client_id, request, status, subject, session_id, pause, poll_at, expires_at)
		VALUES ($1, $2, $3, $4, 'pending', '', '', $5, 0, $6)`
	// Whoever polls is told what there is to tell; asking too early makes the pause longer.
	pollDevice = `UPDATE oauth_devices SET
			early = CASE WHEN poll_at > $1 THEN 1 ELSE 0 END,
			pause = CASE WHEN poll_at > $1 THEN pause + $2 ELSE pause END,
			poll_at = $1 + CASE WHEN poll_at > $1 THEN pause + $2 ELSE pause END
		WHERE hash = $3 AND client_id = $4
		RETURNING status, expires_at, early`
	consumeDevice = `UPDATE oauth_devices SET status = 'consumed' WHERE hash = $1 AND client_id = $2 AND status = 'approved' AND expires_at > $3
		RETURNING subject, session_id, request`
	noteDevice   = `UPDATE oauth_devices SET grant_id = $1 WHERE hash = $2`
	usedDevice   = `SELECT subject, grant_id FROM oauth_devices WHERE hash = $1 AND client_id = $2 AND status = 'consumed'`
	findDevice   = `SELECT client_id, request FROM oauth_devices WHERE user_code = $1 AND status = 'pending' AND expires_at > $2`
	decideDevice = `UPDATE oauth_devices SET status = $1, subject = $2, session_id = $3
		WHERE user_code = $4 AND status = 'pending' AND expires_at > $5`
	sweepDevices = `DELETE FROM oauth_devices WHERE hash IN (SELECT hash FROM oauth_devices WHERE expires_at < $1 LIMIT $2)`
)

// deviceAnswer is what a device gets to show (RFC 8628, section 3.2).
type deviceAnswer struct {
	DeviceCode   string `json:"device_code"`
	UserCode     string `json:"user_code"`
	Verification string `json:"verification_uri"`
	Complete     string `json:"verification_uri_complete"`
	ExpiresIn    int64  `json:"expires_in"`
	Interval     int64  `json:"interval"`
}

// authorizeDevice gives a device a code to show, and one to ask with.
func (s *Service) authorizeDevice(ctx context.Context, c *call) (any, error) {
	if !slices.Contains(c.client.GrantTypes, GrantDevice) {
		return nil, ErrUnauthorizedClient
	}
	req := &request{client: c.client, params: c.form}
	if err := req.checkScope(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(agreement{Scope: req.scope, Resources: req.resources, UserAgent: session.NewDevice(httpd.UserAgent(ctx), httpd.ClientAddr(ctx)).UserAgent})
	if err != nil {
		return nil, err
	}
	code, user := rand.Text()+rand.Text(), newUserCode()
	_, err = s.deps.DB.Writer().ExecContext(ctx, insertDevice, hashSecret(code), user, c.client.ID, string(text), devicePause.Microseconds(),
		sqldb.Micros(s.deps.Clock().Add(deviceLifetime)))
	if err != nil {
		return nil, fmt.Errorf("store device: %w", err)
	}
	shown := user[:4] + "-" + user[4:]
	at := s.deps.Issuer + devicePath
	return deviceAnswer{code, shown, at, at + "?user_code=" + shown, int64(deviceLifetime / time.Second), int64(devicePause / time.Second)}, nil
}

// newUserCode returns a code that people can type: 34 bits, which last ten minutes and are guessed thirty times a minute at most.
func newUserCode() string {
	code := make([]byte, 0, userLength)
	for len(code) < userLength {
		var b [1]byte
		rand.Read(b[:])
		if int(b[0]) < 256/len(userAlphabet)*len(userAlphabet) { // or some letters would be likelier
			code = append(code, userAlphabet[int(b[0])%len(userAlphabet)])
		}
	}
	return string(code)
}

// parseUserCode reads what somebody typed: case and what is between the letters do not matter.
func parseUserCode(typed string) (string, bool) {
	code := strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(typed))
	return code, len(code) == userLength && strings.Trim(code, userAlphabet) == ""
}

// deviceCode answers a device that asks whether its person has agreed (RFC 8628, section 3.4). A device has no use for the tokens of a code
// that it presents again, be it that the answer was lost: they are taken back, like those of an authorization code.
func (s *Service) deviceCode(ctx context.Context, c *call) (tokenAnswer, error) {
	code := c.param("device_code")
	if code == "" {
		return tokenAnswer{}, ErrInvalidRequest.With("The parameter device_code is missing.")
	}
	x, err := s.newExchange(ctx, c.client, code)
	if err != nil {
		return tokenAnswer{}, err
	}
	x.elsewhere = true
	commit, err := s.consumeDevice(ctx, &x, c)
	if errors.Is(err, errUnusable) {
		return tokenAnswer{}, errors.Join(ErrInvalidGrant, s.takeBack(ctx, usedDevice, x.hash, c.client.ID))
	}
	if err != nil {
		return tokenAnswer{}, grantError(err)
	}
	tokens, err := commit(ctx)
	if err != nil {
		return tokenAnswer{}, grantError(err)
	}
	return s.personal(ctx, c.client, tokens, x.agreed)
}

// consumeDevice uses the code of a device whose person has agreed, once.
func (s *Service) consumeDevice(ctx context.Context, x *exchange, c *call) (commit func(context.Context) (session.Tokens, error), err error) {
	if err := s.poll(ctx, x.hash, c.client.ID); err != nil {
		return nil, err
	}
	err = s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		text, err := sqldb.One(ctx, tx, func(r sqldb.Row) (text string, err error) {
			err = r.Scan(&x.subject, &x.sessionID, &text)
			return text, err
		}, consumeDevice, x.hash, c.client.ID, sqldb.Micros(s.deps.Clock()))
		if errors.Is(err, sqldb.ErrNotFound) {
			return errUnusable
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(text), &x.agreed); err != nil {
			return err
		}
		commit, err = s.grant(ctx, tx, x, c, true)
		return err
	})
	return commit, err
}

// poll says why there is nothing yet, or nothing any more; nil when the person has agreed.
func (s *Service) poll(ctx context.Context, hash []byte, clientID string) error {
	now := s.deps.Clock()
	var early int64
	var status string
	expires, err := sqldb.One(ctx, s.deps.DB.Writer(), func(r sqldb.Row) (expires int64, err error) {
		err = r.Scan(&status, &expires, &early)
		return expires, err
	}, pollDevice, sqldb.Micros(now), slowDown.Microseconds(), hash, clientID)
	switch {
	case errors.Is(err, sqldb.ErrNotFound):
		return ErrInvalidGrant
	case err != nil:
		return err
	case status == "consumed":
		return errUnusable
	case !now.Before(sqldb.Time(expires)):
		return ErrExpiredToken
	case status == "denied":
		return ErrAccessDenied
	case status == "approved":
		return nil
	case early == 1:
		return ErrSlowDown
	default:
		return ErrAuthorizationPending
	}
}

// device is where a person brings the code that a device shows.
func (p pages) device(w http.ResponseWriter, r *http.Request) error {
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	typed := r.URL.Query().Get("user_code")
	if v == nil {
		back := devicePath
		if code, ok := parseUserCode(typed); ok {
			back += "?user_code=" + code
		}
		return see(w, r, "/sign-in?"+url.Values{"return_to": {back}}.Encode())
	}
	r = r.WithContext(v.seen(r.Context()))
	if typed == "" {
		return p.web.Page(w, r, http.StatusOK, web.Device{})
	}
	code, client, agreed, err := p.waiting(r.Context(), typed)
	if errors.Is(err, ErrUserCode) {
		return p.web.Page(w, r, http.StatusNotFound, web.Device{Code: clip(typed), Form: web.Form{Fault: ErrUserCode}})
	}
	if err != nil {
		return err
	}
	// Even a code in the address is shown again: a person must see that it is the one on their device (section 5.4).
	return p.web.Page(w, r, http.StatusOK, web.DeviceConsent{Client: client.Name, Code: code[:4] + "-" + code[4:], Email: v.account.Email, Scopes: agreed.Scope,
		Unvetted: client.SelfRegistered()})
}

// clip is as much of what somebody typed as is shown again.
func clip(typed string) string {
	const most = 20
	n := 0
	for i := range typed {
		if n++; n > most {
			return typed[:i]
		}
	}
	return typed
}

// waiting finds the device that shows a code.
func (p pages) waiting(ctx context.Context, typed string) (code string, c Client, agreed agreement, err error) {
	if err := p.limit(ctx, "oidc.user_codes", 30, ratelimit.Network(httpd.ClientAddr(ctx))); err != nil {
		return "", Client{}, agreement{}, err
	}
	code, ok := parseUserCode(typed)
	if !ok {
		return "", Client{}, agreement{}, ErrUserCode
	}
	var id string
	text, err := sqldb.One(ctx, p.deps.DB.Reader(), func(r sqldb.Row) (text string, err error) {
		err = r.Scan(&id, &text)
		return text, err
	}, findDevice, code, sqldb.Micros(p.deps.Clock()))
	if errors.Is(err, sqldb.ErrNotFound) {
		return "", Client{}, agreement{}, ErrUserCode
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), &agreed)
	}
	if err == nil {
		c, err = p.client(ctx, id)
	}
	return code, c, agreed, err
}

// decideDevice is the person's answer.
func (p pages) decideDevice(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(r)
	if err != nil {
		return ErrRequestRefused.Wrap(err)
	}
	v, err := p.visitor(r)
	if err != nil {
		return err
	}
	if v == nil {
		return see(w, r, "/sign-in?"+url.Values{"return_to": {devicePath}}.Encode())
	}
	code, client, agreed, err := p.waiting(r.Context(), form.Get("user_code"))
	if err != nil {
		return err
	}
	status := "denied"
	if form.Get("decision") == "allow" {
		status = "approved"
	}
	err = p.deps.DB.Write(r.Context(), func(tx sqldb.Tx) error {
		err := changed(r.Context(), tx, decideDevice, status, v.account.ID, v.session.ID, code, sqldb.Micros(p.deps.Clock()))
		if errors.Is(err, ErrClientUnknown) {
			return ErrUserCode
		}
		if err != nil || status == "denied" {
			return err
		}
		return p.recordOwn(r.Context(), tx, v.account.ID, client.ID, "client.allowed", strings.Join(agreed.Scope, " "))
	})
	if err != nil {
		return err
	}
	return p.web.Page(w, r.WithContext(v.seen(r.Context())), http.StatusOK, web.DeviceDone{Client: client.Name, Allowed: status == "approved"})
}
