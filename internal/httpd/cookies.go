package httpd

import (
	"net/http"
	"time"
)

// Cookies makes the cookies Sumun sets, each with its one name and set of attributes (RFC 6265bis). Secure says that people
// reach us over a trustworthy origin: https, or loopback. Without it the name prefixes and the Secure attribute go, since
// browsers would drop such cookies; that is for development only.
//
// Each ...Cookie method returns a cookie that lives for the given time, or until the browser closes when lifetime is zero;
// an empty value makes the browser forget it. Hand it to http.SetCookie or to a huma output's Set-Cookie header.
type Cookies struct{ Secure bool }

// Session returns the name of the pages' session cookie.
func (c Cookies) Session() string { return c.prefixed("__Host-", "sumun_session") }

// Refresh returns the name of the cookie that carries a refresh token.
func (c Cookies) Refresh() string { return c.prefixed("__Secure-", "sumun_refresh") }

// Device returns the name of the cookie by which a person's device is known again.
func (c Cookies) Device() string { return c.prefixed("__Host-", "sumun_device") }

// Gateway returns the name of the cookie behind which the gateway keeps tokens.
func (c Cookies) Gateway() string { return c.prefixed("__Host-", "sumun_gateway") }

// Flow returns the name of the cookie that binds a sign-in with another service to the browser that began it.
func (c Cookies) Flow() string { return c.prefixed("__Host-", "sumun_flow") }

// Proved returns the name of the cookie with an identity that another service has proved and that opens no account yet.
func (c Cookies) Proved() string { return c.prefixed("__Host-", "sumun_proved") }

// Lang returns the name of the cookie with the chosen language.
func (c Cookies) Lang() string { return "sumun_lang" }

// SessionCookie goes with every request to us, also the first after following a link from elsewhere.
func (c Cookies) SessionCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Session(), value, "/", http.SameSiteLaxMode, lifetime)
}

// RefreshCookie goes to the session endpoints only, and never with a request another site caused.
func (c Cookies) RefreshCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Refresh(), value, "/v1/sessions", http.SameSiteStrictMode, lifetime)
}

// DeviceCookie goes with every request to us.
func (c Cookies) DeviceCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Device(), value, "/", http.SameSiteLaxMode, lifetime)
}

// GatewayCookie goes with every request to us, also the first after following a link from elsewhere.
func (c Cookies) GatewayCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Gateway(), value, "/", http.SameSiteLaxMode, lifetime)
}

// FlowCookie goes with every request to us, also the one with which a person comes back from another service.
func (c Cookies) FlowCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Flow(), value, "/", http.SameSiteLaxMode, lifetime)
}

// ProvedCookie goes with every request to us, also the first after following a link in a mail.
func (c Cookies) ProvedCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Proved(), value, "/", http.SameSiteLaxMode, lifetime)
}

// LangCookie goes with every request to us.
func (c Cookies) LangCookie(value string, lifetime time.Duration) *http.Cookie {
	return c.cookie(c.Lang(), value, "/", http.SameSiteLaxMode, lifetime)
}

func (c Cookies) cookie(name, value, path string, site http.SameSite, lifetime time.Duration) *http.Cookie {
	maxAge := int(lifetime / time.Second)
	if value == "" || lifetime < 0 {
		value, maxAge = "", -1
	}
	return &http.Cookie{
		Name: name, Value: value, Path: path, MaxAge: maxAge,
		Secure: c.Secure, HttpOnly: true, SameSite: site,
	}
}

func (c Cookies) prefixed(prefix, name string) string {
	if c.Secure {
		return prefix + name
	}
	return name
}
