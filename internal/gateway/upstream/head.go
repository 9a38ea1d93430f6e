package upstream

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// malformed is an answer that is not HTTP/1.1, in words for the log.
type malformed string

// Error implements error.
func (m malformed) Error() string { return "answer with a " + string(m) }

// field is one line of a header. Its strings are parts of the block they were read in.
type field struct {
	name  string // canonical
	value string
	hop   bool // belongs to the connection and is not passed on
	added bool // to the client's header
}

// head is the first part of an answer: status line and header.
type head struct {
	fields  []field
	status  int
	length  int64 // of the body by Content-Length, -1 where none is given
	chunked bool
	close   bool          // the connection ends with this answer
	keep    time.Duration // for how long the endpoint keeps the connection, 0 where it does not say
	upgrade string
}

// forget lets go of the block that the fields are parts of, and keeps the room.
func (h *head) forget() {
	clear(h.fields)
	*h = head{fields: h.fields[:0]}
}

// parseHead parses a block of lines that end in CRLF, the last one empty, strictly by RFC 9112: obs-fold, white space before a
// colon, control characters, two lengths, a length beside a transfer coding, and codings other than chunked are refused, since
// others might read them differently.
func parseHead(block string, h *head) error {
	h.forget()
	h.length = -1
	line, rest, _ := strings.Cut(block, "\r\n")
	old, err := h.parseStatus(line)
	if err != nil {
		return err
	}
	h.close = old
	kept := false // the connection, by an HTTP/1.0 server that says so
	if h.fields, err = parseFields(rest, h.fields); err != nil {
		return err
	}
	for i := range h.fields {
		f := &h.fields[i]
		switch f.name {
		case "Content-Length":
			if h.length, err = parseLength(f.value, h.length); err != nil {
				return err
			}
		case "Transfer-Encoding":
			if h.chunked || old || !strings.EqualFold(f.value, "chunked") {
				return malformed("transfer coding that is not understood")
			}
			h.chunked, f.hop = true, true
		case "Connection":
			f.hop = true
			for token := range tokens(f.value) {
				h.close = h.close || strings.EqualFold(token, "close")
				kept = kept || strings.EqualFold(token, "keep-alive")
			}
		case "Keep-Alive":
			h.keep, f.hop = parseKeepAlive(f.value), true
		case "Upgrade":
			h.upgrade, f.hop = f.value, true
		default:
			f.hop = hopByHop(f.name)
		}
	}
	if h.chunked && h.length >= 0 {
		return malformed("length beside a transfer coding")
	}
	if old && kept {
		h.close = false
	}
	h.dropNamed()
	return nil
}

// dropNamed marks the fields that Connection names as belonging to the connection.
func (h *head) dropNamed() {
	for i := range h.fields {
		if h.fields[i].name != "Connection" {
			continue
		}
		for token := range tokens(h.fields[i].value) {
			for j := range h.fields {
				if strings.EqualFold(h.fields[j].name, token) && !endToEnd(h.fields[j].name) {
					h.fields[j].hop = true
				}
			}
		}
	}
}

// parseStatus parses the first line. old says that it is HTTP/1.0.
func (h *head) parseStatus(line string) (old bool, err error) {
	if len(line) < len("HTTP/1.1 200") || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		len(line) > 12 && line[12] != ' ' || !syntax.Text(line) {
		return false, malformed("status line that cannot be read")
	}
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return false, malformed("status that is no number")
		}
		h.status = 10*h.status + int(c-'0')
	}
	if h.status < 100 || h.status > 599 {
		return false, malformed("status outside 100 to 599")
	}
	return line[7] == '0', nil
}

// parseFields parses lines up to the empty one and appends them to fields.
func parseFields(lines string, fields []field) ([]field, error) {
	for {
		if lines == "\r\n" {
			return fields, nil
		}
		end := strings.IndexByte(lines, '\r')
		if end < 0 || end+1 >= len(lines) || lines[end+1] != '\n' {
			return nil, malformed("carriage return within a line")
		}
		line := lines[:end]
		lines = lines[end+2:]
		colon := strings.IndexByte(line, ':')
		if colon <= 0 || !syntax.Token(line[:colon]) {
			return nil, malformed("header line that cannot be read")
		}
		value := syntax.Trim(line[colon+1:])
		if !syntax.Text(value) {
			return nil, malformed("control character in a header")
		}
		fields = append(fields, field{name: http.CanonicalHeaderKey(line[:colon]), value: value})
	}
}

// parseLength parses a Content-Length; before is the one that was there already, -1 for none.
func parseLength(text string, before int64) (n int64, err error) {
	if before >= 0 {
		return 0, malformed("second Content-Length")
	}
	if text == "" || len(text) > 18 {
		return 0, malformed("Content-Length that is no number")
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, malformed("Content-Length that is no number")
		}
		n = 10*n + int64(c-'0')
	}
	return n, nil
}

// parseKeepAlive returns the time of "Keep-Alive: timeout=5", which many servers send (RFC 2068, section 19.7.1.1); 0 for anything
// else.
func parseKeepAlive(text string) time.Duration {
	for token := range tokens(text) {
		if value, ok := strings.CutPrefix(token, "timeout="); ok {
			if seconds, err := strconv.ParseUint(value, 10, 16); err == nil {
				return time.Duration(seconds) * time.Second
			}
		}
	}
	return 0
}

// hopByHop reports whether a field belongs to a connection, by its canonical name (RFC 9110, section 7.6.1).
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// endToEnd reports whether a field never belongs to a connection, whatever Connection says: without it, the message would
// mean something else.
func endToEnd(name string) bool {
	switch name {
	case "Host", "Authorization", "Cookie", "Set-Cookie", "Cache-Control", "Content-Length", "Content-Type", "Content-Encoding",
		"Content-Range", "Date", "Vary", "Www-Authenticate", "Location":
		return true
	}
	return false
}

// StripHopByHop removes from a request's header what belongs to the client's connection, and what the client says belongs to
// it. A gateway calls it before it adds headers of its own, or a client could name those and have them removed. Connection and
// Upgrade of a request to change the protocol stay for Forward, as does "TE: trailers".
func StripHopByHop(h http.Header) {
	upgrade, trailers := upgradeOf(h), acceptsTrailers(h)
	for _, value := range h["Connection"] {
		for token := range tokens(value) {
			if name := http.CanonicalHeaderKey(token); !endToEnd(name) {
				delete(h, name)
			}
		}
	}
	for name := range h {
		if hopByHop(name) {
			delete(h, name)
		}
	}
	if upgrade != "" {
		h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{upgrade}
	}
	if trailers {
		h["Te"] = []string{"trailers"}
	}
}

// upgradeOf returns the protocol that a request wants to change to, "" for none.
func upgradeOf(h http.Header) string {
	if len(h["Upgrade"]) != 1 {
		return ""
	}
	for _, value := range h["Connection"] {
		for token := range tokens(value) {
			if strings.EqualFold(token, "Upgrade") {
				return h["Upgrade"][0]
			}
		}
	}
	return ""
}

func acceptsTrailers(h http.Header) bool {
	for _, value := range h["Te"] {
		for token := range tokens(value) {
			if strings.EqualFold(token, "trailers") {
				return true
			}
		}
	}
	return false
}

// tokens yields the parts of a comma-separated list, trimmed, the empty ones left out.
func tokens(list string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for part := range strings.SplitSeq(list, ",") {
			if part = syntax.Trim(part); part != "" && !yield(part) {
				return
			}
		}
	}
}
