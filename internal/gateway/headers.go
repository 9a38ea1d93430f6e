package gateway

import (
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/httpd"
)

// cleaner removes from requests what only the gateway may say.
type cleaner struct {
	names    map[string]bool // folded
	prefixes []string
}

// alwaysStripped are set by the gateway, or by nobody.
var alwaysStripped = []string{
	"Forwarded", "X-Forwarded", "X-Forwarded-*", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "X-Request-Id",
	"X-Original-*", "X-Rewrite-Url", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override", "Proxy",
	"Client-Cert", "Client-Cert-Chain",
}

func newCleaner(strip []string) *cleaner {
	c := &cleaner{names: map[string]bool{}}
	c.add(alwaysStripped, strip)
	return c
}

// add takes names of headers, a star at the end standing for any ending.
func (c *cleaner) add(lists ...[]string) {
	for _, list := range lists {
		for _, name := range list {
			bare, prefix := strings.CutSuffix(name, "*")
			bare = fold(textproto.CanonicalMIMEHeaderKey(bare))
			if prefix {
				c.prefixes = append(c.prefixes, bare)
			} else {
				c.names[bare] = true
			}
		}
	}
}

// clean removes the headers that belong to the connection (RFC 9110, section 7.6.1), and those that say who calls. It comes
// before anything is set: a client that lists a header in Connection must not have ours removed.
func (c *cleaner) clean(h http.Header) {
	if options, there := h["Connection"]; there {
		for _, list := range options {
			for option := range strings.SplitSeq(list, ",") {
				if option = textproto.TrimString(option); !strings.EqualFold(option, "upgrade") && !strings.EqualFold(option, "te") {
					h.Del(option)
				}
			}
		}
		c.keepUpgrade(h)
	}
	for name := range h {
		if c.strips(name) {
			delete(h, name)
		}
	}
}

// keepUpgrade leaves of Connection what asks for a WebSocket. Every other protocol is left out, as a server may (RFC 9110, section 7.8):
// on a connection that speaks h2c nobody would see the requests that follow.
func (c *cleaner) keepUpgrade(h http.Header) {
	if hasToken(h["Upgrade"], "websocket") && hasToken(h["Connection"], "upgrade") {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		return
	}
	delete(h, "Connection")
	delete(h, "Upgrade")
}

func hasToken(lists []string, token string) bool {
	for _, list := range lists {
		for part := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(textproto.TrimString(part), token) {
				return true
			}
		}
	}
	return false
}

// strips reports whether a header is not let in.
func (c *cleaner) strips(name string) bool {
	if folded := fold(name); folded != name {
		switch name = folded; name {
		case "Authorization", "Cookie", "Content-Length", "Content-Type", "Transfer-Encoding", "Host":
			return true // a second spelling of what decides
		}
	}
	if c.names[name] {
		return true
	}
	for _, prefix := range c.prefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// fold returns a canonical name as programs behind CGI and its heirs see it: to them "-", "_" and some others are the same.
func fold(name string) string {
	odd := strings.IndexFunc(name, isOdd)
	if odd < 0 {
		return name
	}
	return textproto.CanonicalMIMEHeaderKey(strings.Map(func(c rune) rune {
		if isOdd(c) {
			return '-'
		}
		return c
	}, name))
}

func isOdd(c rune) bool {
	return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
}

// announce tells the upstream what the gateway knows: who asked for what, under which id and in which trace.
func announce(r *http.Request, c *stage.Call) {
	h, ctx := r.Header, r.Context()
	proto := "http"
	if httpd.Secure(ctx) {
		proto = "https"
	}
	values := make([]string, 5) // one piece of memory for all
	set := func(i int, name, value string) {
		values[i] = value
		h[name] = values[i : i+1 : i+1]
	}
	if c.Client.IsValid() {
		set(0, "X-Forwarded-For", c.Client.String())
	}
	set(1, "X-Forwarded-Proto", proto)
	set(2, "X-Forwarded-Host", r.Host)
	set(3, "X-Request-Id", httpd.RequestID(ctx))
	if parents := h["Traceparent"]; len(parents) != 1 || !isTraceparent(parents[0]) {
		delete(h, "Tracestate")
		set(4, "Traceparent", newTraceparent())
	}
}

// newTraceparent begins a trace where there is none (W3C Trace Context, section 3.2).
func newTraceparent() string {
	var id [24]byte
	for i := 0; i < len(id); i += 8 {
		n := rand.Uint64() | 1 // not all zero
		for j := range 8 {
			id[i+j] = byte(n >> (8 * j))
		}
	}
	text := make([]byte, 0, 55)
	text = append(text, "00-"...)
	text = hex.AppendEncode(text, id[:16])
	text = append(text, '-')
	text = hex.AppendEncode(text, id[16:])
	text = append(text, "-00"...)
	return string(text)
}

// isTraceparent reports whether a value is of version 00, or of a later one that begins in the same way.
func isTraceparent(v string) bool {
	if len(v) < 55 || len(v) > 55 && (v[:2] == "00" || v[55] != '-') || len(v) > 128 || v[:2] == "ff" {
		return false
	}
	for i := range 55 {
		switch dash := i == 2 || i == 35 || i == 52; {
		case dash && v[i] != '-':
			return false
		case !dash && !('0' <= v[i] && v[i] <= '9' || 'a' <= v[i] && v[i] <= 'f'):
			return false
		}
	}
	return strings.Trim(v[3:35], "0") != "" && strings.Trim(v[36:52], "0") != ""
}

// introduce tells the upstream in headers who calls.
func introduce(h http.Header, c *stage.Call) {
	if c.Claims == nil {
		return
	}
	for name, value := range map[string]string{
		"X-Sumun-Subject": c.Claims.Subject, "X-Sumun-Client": c.Claims.ClientID, "X-Sumun-Session": c.Claims.SessionID,
		"X-Sumun-Scope": c.Claims.Scope, "X-Sumun-Roles": strings.Join(c.Claims.Roles, " "),
	} {
		if value != "" {
			h[name] = []string{value}
		}
	}
}

// secure sets what an answer lacks of the headers that keep browsers from being misled. What the upstream says stands.
func secure(h http.Header, https bool) {
	for i := range secured {
		if s := &secured[i]; h[s.name] == nil && (https || !s.https) {
			h[s.name] = s.value
		}
	}
}

// secured is shared by all answers: nothing is ever appended to a full slice in place.
var secured = [...]struct {
	name  string
	value []string
	https bool
}{
	{"X-Content-Type-Options", []string{"nosniff"}, false},
	{"X-Frame-Options", []string{"SAMEORIGIN"}, false},
	{"Referrer-Policy", []string{"strict-origin-when-cross-origin"}, false},
	{"Strict-Transport-Security", []string{"max-age=31536000"}, true},
}
