package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

const (
	scratchSize = 32 << 10
	firstBuffer = 2 << 10 // of a body that is read before it is sent: room grows with what has come
)

// scratches are buffers to copy bodies through.
var scratches = sync.Pool{New: func() any { return new([scratchSize]byte) }}

// payload is the body of a request on its way out.
type payload struct {
	stream  io.ReadCloser // nil when all of it is in bytes
	bytes   []byte
	length  int64 // -1 where the end shows itself
	expects bool  // the client waits to be asked for it (RFC 9110, section 10.1.1)
	begun   bool  // reading from stream, which can be done once
}

// replayable reports whether the body can be sent again.
func (p *payload) replayable() bool { return p.stream == nil || !p.begun }

// payloadOf reads a body of at most max bytes, so that it can be sent in one piece and again, and that a slow client does not keep
// an endpoint waiting. A larger one is streamed. The error is the client's, or that of a bound the caller has set.
func payloadOf(r *http.Request, max int64) (payload, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return payload{}, nil
	}
	p := payload{length: r.ContentLength, expects: expectsContinue(r)}
	if r.ContentLength < 0 || r.ContentLength > max || p.expects {
		p.stream = r.Body
		return p, nil
	}
	room := make([]byte, 0, min(int(r.ContentLength), firstBuffer))
	for int64(len(room)) < r.ContentLength {
		if len(room) == cap(room) {
			room = append(make([]byte, 0, min(int(r.ContentLength), 4*cap(room))), room...)
		}
		n, err := r.Body.Read(room[len(room):cap(room)])
		room = room[:len(room)+n]
		if err != nil && int64(len(room)) < r.ContentLength {
			return p, bodyError(err)
		}
	}
	// The end is read too: it tells net/http to watch for the client's leaving.
	if n, err := r.Body.Read(make([]byte, 1)); n > 0 || err != nil && err != io.EOF {
		return p, bodyError(err)
	}
	p.bytes = room
	return p, nil
}

// bodyError keeps the errors that mean something to the caller, and says of others what the client did.
func bodyError(err error) error {
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) || isTimeout(err) {
		return fmt.Errorf("read request body: %w", err)
	}
	return ErrRequest.With("The body of the request ended before its end.").Wrap(err)
}

func expectsContinue(r *http.Request) bool {
	v := r.Header["Expect"]
	return len(v) == 1 && len(v[0]) == len("100-continue") && http.CanonicalHeaderKey(v[0]) == "100-Continue"
}

// checkRequest refuses what cannot be written, or would end its line.
func checkRequest(r *http.Request, target, host string) error {
	switch {
	case r.Method == http.MethodConnect || !syntax.Token(r.Method):
		return ErrRequest.With("This method cannot be passed on.")
	case !syntax.Visible(target):
		return ErrRequest.With("This path cannot be passed on.")
	case host == "" || !syntax.Visible(host):
		return ErrRequest.With("This host cannot be passed on.")
	case len(r.Header["Expect"]) > 0 && !expectsContinue(r):
		return ErrRequest.With("This expectation cannot be met.")
	}
	return nil
}

// appendHead appends the first part of a request: its line and its header, without what belongs to the client's connection. It
// fails on a header that would end its line.
func appendHead(b []byte, c *call, upgrade string) ([]byte, error) {
	b = append(b, c.r.Method...)
	b = append(b, ' ')
	b = append(b, c.target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.host...)
	b = append(b, "\r\n"...)
	connection := c.r.Header["Connection"]
	for name, values := range c.r.Header {
		if skipped(name) || len(connection) > 0 && !endToEnd(name) && names(connection, name) {
			continue
		}
		if !syntax.Token(name) {
			return nil, ErrRequest.With("A header of the request cannot be passed on.")
		}
		for _, value := range values {
			if !syntax.Text(value) {
				return nil, ErrRequest.With("A header of the request cannot be passed on.")
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, value...)
			b = append(b, "\r\n"...)
		}
	}
	if upgrade != "" {
		b = append(b, "Connection: Upgrade\r\nUpgrade: "...)
		b = append(b, upgrade...)
		b = append(b, "\r\n"...)
	} else if acceptsTrailers(c.r.Header) {
		b = append(b, "Connection: TE\r\nTE: trailers\r\n"...)
	}
	b = c.appendFraming(b)
	return append(b, "\r\n"...), nil
}

// appendFraming says how long the body is (RFC 9112, section 6).
func (c *call) appendFraming(b []byte) []byte {
	r, p := c.r, &c.payload
	switch {
	case p.stream != nil && p.length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		for name := range r.Trailer {
			if c.mayTrail(name) {
				b = append(b, "Trailer: "...)
				b = append(b, name...)
				b = append(b, "\r\n"...)
			}
		}
	case p.length > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, p.length, 10)
		b = append(b, "\r\n"...)
	}
	if p.expects {
		b = append(b, "Expect: 100-continue\r\n"...)
	}
	return b
}

// skipped reports whether a request's field is left out: what belongs to a connection, and what is written from elsewhere.
func skipped(name string) bool {
	return name == "Host" || name == "Content-Length" || name == "Expect" || hopByHop(name)
}

// names reports whether one of the values of Connection names the field.
func names(connection []string, name string) bool {
	for _, value := range connection {
		for token := range tokens(value) {
			if http.CanonicalHeaderKey(token) == name {
				return true
			}
		}
	}
	return false
}

// sending is the body of a request that is sent while its answer is awaited, by a goroutine of its own.
type sending struct {
	done chan struct{} // closed when it has come to an end
	err  error         // after done
	ours bool          // the error is of reading from the client, not of writing to the endpoint

	read atomic.Bool // the whole body, though its last part may not have been written yet

	mu   sync.Mutex
	over bool // the answer has begun, and the deadline for reading is somebody else's
}

// send starts to send.
func (c *call) send(to *conn, l limit) *sending {
	c.payload.begun = true
	s := &sending{done: make(chan struct{})}
	go func() {
		switch s.ours, s.err = s.copyBody(c, to, l); {
		case s.err == nil:
			s.await(to, c.pool.cfg.Timeouts.FirstByte, l.deadline) // only now the endpoint has what it needs for an answer
		case !s.ours:
			s.await(to, lastWords, l.deadline) // it may have answered before it stopped reading
		}
		failed := s.ours
		close(s.done) // first, so that whoever meets the closed connection finds the reason
		if failed {
			_ = to.Close() // so that nobody takes a cut request for a whole one
		}
	}()
	return s
}

// await bounds the wait for an answer that has not begun.
func (s *sending) await(from *conn, patience time.Duration, deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if by := time.Now().Add(patience); !s.over && patience > 0 && (deadline.IsZero() || by.Before(deadline)) {
		_ = from.SetReadDeadline(by)
	}
}

// answered leaves the deadline for reading to others.
func (s *sending) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// copyBody copies the body, in chunks where its length is not known.
func (s *sending) copyBody(c *call, to *conn, l limit) (ours bool, err error) {
	scratch := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(scratch)
	const before, after = 10, 2 // bytes for the size of a chunk in front of it, and for its end behind
	for sent := int64(0); ; {
		n, err := c.payload.stream.Read(scratch[before : scratchSize-after])
		if err == io.EOF {
			s.read.Store(true)
		}
		if n > 0 {
			p := scratch[before : before+n]
			if c.payload.length < 0 {
				size := strconv.AppendInt(scratch[:0:before], int64(n), 16)
				size = append(size, "\r\n"...)
				from := before - len(size)
				copy(scratch[from:], size)
				p = append(scratch[from:before+n], "\r\n"...)
			}
			if sent += int64(n); c.payload.length >= 0 && sent > c.payload.length {
				return true, errors.New("request body is longer than its Content-Length")
			}
			if _, err := to.write(p, l); err != nil {
				return false, err
			}
		}
		switch {
		case err == io.EOF && c.payload.length >= 0 && sent < c.payload.length:
			return true, io.ErrUnexpectedEOF
		case err == io.EOF:
			return false, c.endBody(to, l)
		case err != nil:
			return true, err
		}
	}
}

// endBody writes the last chunk and the trailer.
func (c *call) endBody(to *conn, l limit) error {
	if c.payload.length >= 0 {
		return nil
	}
	b := []byte("0\r\n")
	for name, values := range c.r.Trailer {
		for _, value := range values {
			if c.mayTrail(name) && syntax.Text(value) {
				b = fmt.Appendf(b, "%s: %s\r\n", name, value)
			}
		}
	}
	_, err := to.write(append(b, "\r\n"...), l)
	return err
}

// mayTrail reports whether a field may follow the body.
func (c *call) mayTrail(name string) bool {
	return syntax.Token(name) && !forbiddenTrailer(name) && (c.o.Strips == nil || !c.o.Strips(name))
}

// copyTrailer copies the fields that may follow the body.
func (c *call) copyTrailer(to http.Header) {
	for name, values := range c.r.Trailer {
		if c.mayTrail(name) {
			to[name] = values
		}
	}
}
