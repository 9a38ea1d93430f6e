package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

// newHTTP2 returns net/http's transport for one endpoint. HTTP/2 is left to it: it is not what most requests take, and has more
// ways of going wrong.
func newHTTP2(d *dialer, a address, cfg *Config) *http.Transport {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.net.DialContext(ctx, a.network, a.dial)
		},
		TLSClientConfig:        d.tls.Clone(),
		TLSHandshakeTimeout:    cfg.Timeouts.Connect,
		IdleConnTimeout:        cfg.Connections.IdleTimeout,
		MaxResponseHeaderBytes: int64(cfg.MaxHeader),
		DisableCompression:     true,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 5 * time.Second},
		Protocols:              new(http.Protocols),
	}
	t.TLSClientConfig.NextProtos = nil
	if t.TLSClientConfig.ServerName = d.name; d.name == "" {
		t.TLSClientConfig.ServerName = a.name
	}
	t.Protocols.SetHTTP2(a.tls)
	t.Protocols.SetUnencryptedHTTP2(!a.tls)
	return t
}

// url is where target is at this endpoint.
func (e *endpoint) url(target string) *url.URL {
	scheme := "http"
	if e.address.tls {
		scheme = "https"
	}
	host := e.address.dial
	if e.address.network == "unix" {
		host = e.address.name
	}
	return &url.URL{Scheme: scheme, Host: host, Opaque: target}
}

// stream is a request and its answer in HTTP/2.
type stream struct {
	call   *call
	e      *endpoint
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer // ends the wait that is going on
	body   *requestBody
	answer *http.Response

	mu        sync.Mutex
	connected bool
	sent      bool // the header
	begun     bool // the answer: informational ones come no more
}

var errSilence = errors.New("nothing came for too long")

// tryHTTP2 asks e.
func (c *call) tryHTTP2(ctx context.Context, e *endpoint) (answer, *failure) {
	s := &stream{call: c, e: e}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	r, err := s.request()
	if err != nil {
		s.cancel(nil)
		return nil, &failure{reason: notSendable, err: err}
	}
	s.timer = time.AfterFunc(orNever(s.untilFirstByte()), func() { s.cancel(errSilence) })
	s.answer, err = e.h2.RoundTrip(r)
	s.mu.Lock()
	s.begun = true
	s.mu.Unlock()
	if err == nil {
		s.timer.Reset(orNever(s.patience()))
		return s, nil
	}
	fail := s.fail(ctx, err)
	s.end()
	return nil, fail
}

// fail says why there is no answer.
func (s *stream) fail(ctx context.Context, err error) *failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.body != nil && s.body.failed() != nil && ctx.Err() == nil {
		return &failure{reason: notSendable, err: bodyError(s.body.failed())}
	}
	f := classify(ctx, err)
	switch {
	case context.Cause(s.ctx) == errSilence:
		f = &failure{reason: timedOut, err: errSilence}
	case f.reason == broken && !s.connected:
		f.reason = unreachable
	}
	f.unsent = !s.sent
	return f
}

func orNever(d time.Duration) time.Duration {
	if d <= 0 {
		return 1 << 62
	}
	return d
}

// untilFirstByte is the bound of the wait for the answer. While a body is on its way there is none: its own silence is bounded.
func (s *stream) untilFirstByte() time.Duration {
	return within(s.call.pool.cfg.Timeouts.FirstByte, s.call.deadline)
}

func (s *stream) patience() time.Duration {
	return within(s.call.pool.cfg.Timeouts.Idle, s.call.deadline)
}

// within shortens d to what is left until the deadline.
func within(d time.Duration, deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return d
	}
	if left := max(time.Until(deadline), 1); d <= 0 || left < d {
		return left
	}
	return d
}

// request makes the request as net/http wants it.
func (s *stream) request() (*http.Request, error) {
	c := s.call
	header := c.r.Header.Clone()
	StripHopByHop(header)
	delete(header, "Connection")
	delete(header, "Upgrade")
	delete(header, "Expect")
	for name, values := range header {
		for _, value := range values {
			if !syntax.Token(name) || !syntax.Text(value) {
				return nil, ErrRequest.With("A header of the request cannot be passed on.")
			}
		}
	}
	if header["User-Agent"] == nil {
		header["User-Agent"] = []string{""} // or net/http would add its own
	}
	r := (&http.Request{Method: c.r.Method, URL: s.e.url(c.target), Host: c.host, Header: header, ContentLength: c.payload.length,
		Proto: "HTTP/2.0", ProtoMajor: 2}).WithContext(httptrace.WithClientTrace(s.ctx, s.trace()))
	switch {
	case c.payload.stream != nil:
		c.payload.begun = true
		if c.r.ProtoMajor == 1 {
			_ = http.NewResponseController(c.w).EnableFullDuplex()
		}
		s.body = &requestBody{from: c.payload.stream, progress: func() { s.timer.Reset(orNever(s.untilFirstByte())) }}
		r.Body = s.body
		if len(c.r.Trailer) > 0 {
			r.Trailer = http.Header{}
			s.body.ended = func() { c.copyTrailer(r.Trailer) }
			s.body.ended() // the names that are announced
		}
	case len(c.payload.bytes) > 0:
		r.Body = io.NopCloser(bytes.NewReader(c.payload.bytes))
	}
	return r, nil
}

func (s *stream) trace() *httptrace.ClientTrace {
	note := func(what *bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		*what = true
	}
	return &httptrace.ClientTrace{
		GotConn:      func(httptrace.GotConnInfo) { note(&s.connected) },
		WroteHeaders: func() { note(&s.sent) },
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if !s.begun && status != http.StatusContinue {
				h := headOf(status, http.Header(header))
				s.call.inform(status, &h)
			}
			return nil
		},
	}
}

// headOf brings a header into the form that HTTP/1.1 has here.
func headOf(status int, header http.Header) head {
	h := head{status: status}
	for name, values := range header {
		for _, value := range values {
			h.fields = append(h.fields, field{name: name, value: value, hop: hopByHop(name)})
		}
	}
	return h
}

// status implements answer.
func (s *stream) status() int { return s.answer.StatusCode }

// discard implements answer.
func (s *stream) discard() {
	s.end()
	s.e.inFlight.Add(-1)
}

// end ends the stream, and returns when nobody reads the client's body any more.
func (s *stream) end() {
	s.timer.Stop()
	s.cancel(nil)
	if s.answer != nil {
		_ = s.answer.Body.Close()
	}
	if s.body != nil {
		if !s.body.whole() {
			s.call.endRequest()
		}
		s.body.join()
	}
}

// relay implements answer.
func (s *stream) relay(c *call) {
	defer s.discard()
	h := c.w.Header()
	in := headOf(s.answer.StatusCode, s.answer.Header)
	in.addTo(h)
	for name := range s.answer.Trailer {
		h["Trailer"] = append(h["Trailer"], name)
	}
	streaming := s.answer.ContentLength < 0 || isEvents(h)
	if c.o.OnAnswer != nil {
		c.o.OnAnswer(s.answer.StatusCode, h)
	}
	if s.body != nil && !s.body.whole() && c.r.ProtoMajor == 1 {
		h["Connection"] = []string{"close"}
	}
	if _, known := h["Content-Type"]; !known {
		h["Content-Type"] = nil
	}
	c.w.WriteHeader(s.answer.StatusCode)
	if err := s.copyBody(c.w, streaming); err != nil {
		if s.call.r.Context().Err() == nil && !c.clientLeft(err) {
			s.e.note(false)
			c.pool.metrics.cut.Inc()
		}
		panic(http.ErrAbortHandler)
	}
	for name, values := range s.answer.Trailer {
		for _, value := range values {
			addTrailer(h, name, value)
		}
	}
}

func (s *stream) copyBody(w http.ResponseWriter, streaming bool) error {
	if s.answer.Body == http.NoBody {
		return nil
	}
	flusher := http.NewResponseController(w)
	if streaming {
		_ = flusher.Flush()
	}
	room := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(room)
	for {
		s.timer.Reset(orNever(s.patience()))
		n, err := s.answer.Body.Read(room[:])
		if n > 0 {
			if _, err := w.Write(room[:n]); err != nil {
				return clientError{err}
			}
			if streaming {
				_ = flusher.Flush()
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// requestBody is the client's body on its way through net/http's transport, which may still read from it when it has returned.
type requestBody struct {
	from     io.Reader
	progress func()
	ended    func() // called at the end, nil for nothing
	closed   atomic.Bool

	reading sync.Mutex
	mu      sync.Mutex
	err     error // io.EOF when it is whole
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := b.from.Read(p)
	if err != nil {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	if err == io.EOF && b.ended != nil {
		b.ended()
	}
	b.progress()
	return n, err
}

// Close implements io.Closer. Nothing is read after it, but for a read that is going on: the transport waits for Close, and must
// not wait for a client.
func (b *requestBody) Close() error {
	b.closed.Store(true)
	return nil
}

// join waits until a read that was going on has ended.
func (b *requestBody) join() {
	_ = b.Close()
	b.reading.Lock()
	defer b.reading.Unlock()
}

func (b *requestBody) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == io.EOF
}

// failed returns what is wrong with the client's body.
func (b *requestBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return nil
	}
	return b.err
}
