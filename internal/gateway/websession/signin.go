package websession

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
	"github.com/sumunio/sumun/internal/httpd"
)

// signIn lets a sign-in happen and keeps the pair that it yields. The browser gets the answer without tokens, and a cookie that nobody
// had before: one that was planted in it is worth nothing.
func (x *exchange) signIn(before *key) error {
	if err := x.askForCookies(); err != nil {
		return err
	}
	delete(x.r.Header, "Authorization")
	delete(x.r.Header, "Accept-Encoding")
	answer := &held{header: http.Header{}}
	if err := x.next(answer, x.r, x.c); err != nil {
		return err
	}
	if answer.status >= 200 && answer.status < 300 {
		if err := x.keep(answer); err != nil {
			return err
		}
		if before != nil {
			x.forget(x.r.Context(), before)
		}
	}
	maps.Copy(x.w.Header(), answer.header)
	x.w.WriteHeader(answer.status)
	_, err := x.w.Write(answer.body.Bytes())
	return err
}

// maxSignIn bounds the body of a sign-in, in bytes, as identity does.
const maxSignIn = 16 << 10

// askForCookies has identity put refresh token and device token into cookies, of which the browser gets the latter. A body that cannot
// be read goes on as it is, for identity to refuse.
func (x *exchange) askForCookies() error {
	text, err := io.ReadAll(io.LimitReader(x.r.Body, maxSignIn+1))
	switch _, tooLarge := errors.AsType[*http.MaxBytesError](err); {
	case tooLarge || len(text) > maxSignIn:
		return fault.ErrTooLarge
	case err != nil:
		return httpd.ErrBodyUnread.Wrap(err)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) == nil && members != nil {
		members["transport"] = json.RawMessage(`"cookie"`)
		if text, err = json.Marshal(members); err != nil {
			return httpd.ErrMalformed.Wrap(err)
		}
	}
	x.r.Body, x.r.ContentLength, x.r.TransferEncoding, x.r.Trailer = io.NopCloser(bytes.NewReader(text)), int64(len(text)), nil, nil
	delete(x.r.Header, "Expect")
	x.r.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// keep takes the pair out of the answer to a sign-in.
func (x *exchange) keep(answer *held) error {
	var g grant
	var members map[string]json.RawMessage
	if json.Unmarshal(answer.body.Bytes(), &members) != nil || json.Unmarshal(answer.body.Bytes(), &g) != nil {
		return ErrSignIn
	}
	if cookie := answer.takeRefresh(); g.Refresh == "" {
		g.Refresh = cookie
	}
	p, whole := g.pair(x.Clock(), 0)
	if !whole {
		return ErrSignIn
	}
	for _, secret := range []string{"access_token", "token_type", "expires_in", "refresh_token", "device_token"} {
		delete(members, secret)
	}
	text, err := json.Marshal(members)
	if err != nil {
		return ErrSignIn.Wrap(err)
	}
	answer.body.Reset()
	answer.body.Write(text)
	answer.header.Del("Content-Length")
	answer.header.Set("Cache-Control", "no-store")
	key := newKey()
	sealed, err := key.close(p)
	if err != nil {
		return err
	}
	lifetime := p.Until.Sub(x.Clock())
	if err := x.Store.Create(x.r.Context(), key.id, sealed, lifetime); err != nil {
		return ErrUnavailable.Wrap(err)
	}
	answer.header.Add("Set-Cookie", x.Cookies.GatewayCookie(key.text, lifetime).String())
	return nil
}

// held is an answer that does not go out yet.
type held struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (h *held) Header() http.Header { return h.header }

// WriteHeader implements http.ResponseWriter.
func (h *held) WriteHeader(status int) {
	if h.status == 0 && status >= 200 {
		h.status = status
	}
}

// Write implements http.ResponseWriter.
func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if h.body.Len()+len(b) > maxAnswer {
		return 0, errors.New("the answer to a sign-in is too large")
	}
	return h.body.Write(b)
}

// takeRefresh removes the refresh token's cookie and returns its value; "" where there is none.
func (h *held) takeRefresh() (value string) {
	lines := h.header["Set-Cookie"]
	delete(h.header, "Set-Cookie")
	for _, line := range lines {
		cookie, err := http.ParseSetCookie(line)
		if err == nil && strings.HasSuffix(cookie.Name, "sumun_refresh") {
			value = cookie.Value
			continue
		}
		h.header.Add("Set-Cookie", line)
	}
	return value
}
