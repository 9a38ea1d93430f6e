package upstream

import (
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// spliceFrom is the length from which a body is left to the kernel, which moves it from socket to socket where it can.
const spliceFrom = 256 << 10

// relay implements answer.
func (x *exchange) relay(c *call) {
	whole := false
	defer func() {
		if !whole {
			x.discard()
		}
	}()
	if x.conn.in.status == http.StatusSwitchingProtocols {
		x.tunnel(c)
		return
	}
	streaming := x.writeHead(c)
	if err := x.copyBody(c.w, streaming); err != nil {
		if x.stop.Err() == nil && !c.clientLeft(err) {
			x.e.note(false)
			c.pool.metrics.cut.Inc()
		}
		panic(http.ErrAbortHandler)
	}
	x.writeTrailer(c.w.Header())
	whole = true
	x.finish()
}

// writeHead writes status and header. It reports whether the body is passed on as it comes: its end is not known, or it is made
// of events.
func (x *exchange) writeHead(c *call) (streaming bool) {
	in := &x.conn.in
	h := c.w.Header()
	in.addTo(h)
	if in.status == http.StatusNoContent {
		delete(h, "Content-Length")
	}
	if in.chunked {
		announceTrailer(h, in.fields)
	}
	streaming = x.body.framing != byLength || isEvents(h)
	if c.o.OnAnswer != nil {
		c.o.OnAnswer(in.status, h)
	}
	if c.payload.stream != nil && (x.sending == nil || !x.sending.read.Load()) && c.r.ProtoMajor == 1 {
		h["Connection"] = []string{"close"} // what is left of the body must not be taken for a request
	}
	if _, known := h["Content-Type"]; !known {
		h["Content-Type"] = nil // or net/http would guess
	}
	c.w.WriteHeader(in.status)
	return streaming
}

// addTo adds the fields that are passed on to h. What h already has is the caller's and stays, except fields of which there may be
// several.
func (h *head) addTo(to http.Header) {
	values := make([]string, len(h.fields)) // one allocation for all of them
	for i := range h.fields {
		f := &h.fields[i]
		if f.hop {
			continue
		}
		values[i] = f.value
		before, there := to[f.name]
		switch {
		case !there:
			to[f.name] = values[i : i+1 : i+1]
		case addsUp(f.name) || h.addedBefore(i):
			to[f.name] = append(before, f.value)
		default:
			continue
		}
		f.added = true
	}
}

// addedBefore reports whether a field of the same name as the i-th has been passed on.
func (h *head) addedBefore(i int) bool {
	for j := range h.fields[:i] {
		if h.fields[j].added && h.fields[j].name == h.fields[i].name {
			return true
		}
	}
	return false
}

func addsUp(name string) bool { return name == "Set-Cookie" || name == "Vary" || name == "Link" }

func isEvents(h http.Header) bool {
	v := h["Content-Type"]
	return len(v) == 1 && strings.HasPrefix(v[0], "text/event-stream")
}

// copyBody copies the body. Where it is streaming, what has come goes out before waiting for more.
func (x *exchange) copyBody(w http.ResponseWriter, streaming bool) error {
	if streaming {
		flusher := http.NewResponseController(w)
		x.conn.onWait = func() { _ = flusher.Flush() } // a writer that cannot, does not hold back for long either
	}
	var scratch []byte
	for {
		if scratch == nil && len(x.conn.buffered()) == 0 && (x.body.framing != byLength || x.body.left > 0) {
			if done, err := x.splice(w, streaming); done {
				return err
			}
			room := scratches.Get().(*[scratchSize]byte)
			defer scratches.Put(room)
			scratch = room[:]
		}
		p, err := x.body.next(scratch)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return clientError{err}
		}
	}
}

// splice lets w read a long body from the socket itself. done is false when that cannot be.
func (x *exchange) splice(w http.ResponseWriter, streaming bool) (done bool, err error) {
	to, ok := w.(io.ReaderFrom)
	_, tcp := x.conn.Conn.(*net.TCPConn)
	if !ok || !tcp || streaming || x.body.framing != byLength || x.body.left < spliceFrom {
		return false, nil
	}
	for x.body.left > 0 {
		if by, change := x.conn.wait.by(x.conn.readBy); change {
			x.conn.readBy = by
			_ = x.conn.SetReadDeadline(by)
		}
		// In parts, so that the limit is of the silence between them and not of the whole.
		n, err := to.ReadFrom(&io.LimitedReader{R: x.conn.Conn, N: min(x.body.left, spliceFrom)})
		x.body.left -= n
		switch {
		case n > 0 && (err == nil || isTimeout(err)):
		case err != nil:
			return true, err
		default:
			return true, io.ErrUnexpectedEOF
		}
	}
	return true, nil
}

// clientError is a failure to write to the client.
type clientError struct{ error }

// Unwrap returns the cause.
func (e clientError) Unwrap() error { return e.error }

// clientLeft reports whether it is the client's fault that an answer was cut.
func (c *call) clientLeft(err error) bool {
	_, writing := err.(clientError)
	return writing || c.r.Context().Err() != nil
}

// announceTrailer passes on the names of the fields that will follow the body.
func announceTrailer(h http.Header, fields []field) {
	for i := range fields {
		if fields[i].name != "Trailer" {
			continue
		}
		for name := range tokens(fields[i].value) {
			if name = http.CanonicalHeaderKey(name); syntax.Token(name) && !forbiddenTrailer(name) {
				h["Trailer"] = append(h["Trailer"], name)
			}
		}
	}
}

// writeTrailer passes on the fields that followed the body.
func (x *exchange) writeTrailer(h http.Header) {
	for _, f := range x.body.trailer {
		if !forbiddenTrailer(f.name) {
			addTrailer(h, f.name, f.value)
		}
	}
}

// addTrailer adds a field after the body, as net/http wants it.
func addTrailer(h http.Header, name, value string) {
	for _, announced := range h["Trailer"] {
		if announced == name {
			h[name] = append(h[name], value)
			return
		}
	}
	h.Add(http.TrailerPrefix+name, value)
}

// inform passes an informational answer on, such as 103 Early Hints (RFC 8297), to clients that know of them.
func (c *call) inform(status int, in *head) {
	if c.hedged || !c.r.ProtoAtLeast(1, 1) {
		return
	}
	h := c.w.Header()
	before := h.Clone()
	in.addTo(h)
	delete(h, "Content-Length")
	c.w.WriteHeader(status)
	clear(h)
	for name, values := range before {
		h[name] = values
	}
}
