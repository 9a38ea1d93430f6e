package http1

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

const (
	outSize = 8 << 10 // of the buffer that small answers are sent from in one piece
	maxEnd  = 192     // bytes of the end of a header, and of a chunk's size
	sniffed = 512     // bytes that http.DetectContentType looks at
)

// framing is how the end of an answer's body shows (RFC 9112, section 6).
type framing uint8

const (
	undecided framing = iota // the body may fit into the buffer
	byLength
	inChunks
	without // a body is not allowed
)

var errOver = errors.New("http1: the request has been answered")

// response implements http.ResponseWriter, and what http.ResponseController asks for but Hijack. Goroutines that a handler leaves behind
// may go on writing: it has its end behind what is being written by then, and its room is nobody else's before.
type response struct {
	conn   *conn
	ctx    requestContext
	body   body // of the request
	header http.Header

	mu       sync.Mutex // of what follows
	status   int        // 0 until the header has been written
	framing  framing
	head     bool // the method is HEAD
	close    bool // the connection closes after the answer
	closing  bool // the handler said so itself
	duplex   bool // the handler reads while it writes
	typed    bool // there is a Content-Type, or shall be none
	dated    bool
	open     bool // the end of the header has not been written
	over     bool
	begin    int   // of the body, or of the end of the header while that is open: its place in out
	length   int64 // of the body, as the handler said
	written  int64
	trailers []string // that were announced

	out []byte // not sent yet
	err error  // of the connection
}

// Header implements http.ResponseWriter.
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writeHeader(status)
}

func (w *response) writeHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid WriteHeader code %v", status))
	}
	if w.status != 0 || w.over {
		w.conn.server.net.ErrorLog.Printf("http: superfluous response.WriteHeader call")
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		w.inform(status)
		return
	}
	w.status, w.open = status, true
	w.frame()
	w.out = appendStatus(w.out, status)
	for name, values := range w.header {
		w.appendField(name, values)
	}
	w.begin = len(w.out)
}

// frame decides as much as the header tells.
func (w *response) frame() {
	w.closing = hasToken(w.header["Connection"], "close")
	w.close = w.close || w.closing
	for _, value := range w.header["Trailer"] {
		for name := range strings.SplitSeq(value, ",") {
			if name = http.CanonicalHeaderKey(syntax.Trim(name)); syntax.Token(name) && httpguts.ValidTrailerHeader(name) {
				w.trailers = append(w.trailers, name)
			}
		}
	}
	switch text := w.header["Content-Length"]; {
	case w.status < 200 || w.status == http.StatusNoContent || w.status == http.StatusNotModified:
		w.framing, w.typed = without, true
		return
	case len(text) == 1:
		n, err := strconv.ParseInt(text[0], 10, 64)
		if err == nil && n >= 0 {
			w.framing, w.length = byLength, n
		} else {
			w.conn.server.net.ErrorLog.Printf("http: invalid Content-Length of %q", text[0])
		}
	}
	_, typed := w.header["Content-Type"]
	w.typed = typed || w.header.Get("Content-Encoding") != ""
}

// inform sends an informational answer.
func (w *response) inform(status int) {
	w.out = appendStatus(w.out, status)
	for name, values := range w.header {
		if name != "Content-Length" && name != "Transfer-Encoding" {
			w.out = appendValues(w.out, name, values)
		}
	}
	w.out = append(w.out, "\r\n"...)
	_ = w.send(nil)
}

func (w *response) appendField(name string, values []string) {
	switch name {
	case "Content-Length", "Transfer-Encoding": // written with the end of the header
		return
	case "Content-Type":
		if w.status == http.StatusNotModified {
			return
		}
	case "Date":
		w.dated = true
	}
	w.out = appendValues(w.out, name, values) // not those with http.TrailerPrefix, which is no token
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return 0, errOver
	}
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	return w.write(p)
}

func (w *response) write(p []byte) (int, error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case w.framing == without:
		return 0, http.ErrBodyNotAllowed
	case w.framing == byLength && w.written+int64(len(p)) > w.length:
		w.close = true // who knows what the handler meant
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if w.open && len(w.out)+len(p) <= outSize-maxEnd {
		w.out = append(w.out, p...)
		return len(p), w.err
	}
	if w.decide(p); w.head {
		return len(p), w.err
	}
	if w.framing == inChunks {
		w.out = appendSize(w.out, len(p))
	}
	if err := w.put(p); err != nil {
		return 0, err
	}
	if w.framing == inChunks {
		w.out = append(w.out, "\r\n"...)
	}
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (w *response) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// ReadFrom implements io.ReaderFrom: where src is a part of a socket or file, the kernel moves it.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if part, ok := src.(*io.LimitedReader); ok && canMove(part.R) {
		if n, done, err := w.move(part); done {
			return n, err
		}
	}
	return io.Copy(struct{ io.Writer }{w}, src)
}

// canMove reports whether the kernel can. What others do while they are read is not known: they may write an answer.
func canMove(src io.Reader) bool {
	switch src.(type) {
	case *net.TCPConn, *os.File:
		return true
	}
	return false
}

func (w *response) move(part *io.LimitedReader) (n int64, done bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status == 0 || w.over || !w.typed || w.head || w.framing != byLength || part.N > w.length-w.written {
		return 0, false, nil
	}
	if err := w.flush(); err != nil {
		return 0, true, err
	}
	n, err = w.conn.tcp.ReadFrom(part)
	w.written += n
	return n, true, err
}

// decide ends the header; p is about to follow what the buffer has of the body. A body whose length is not known by now is sent in chunks.
func (w *response) decide(p []byte) {
	if w.framing == undecided && !w.head {
		w.framing = inChunks
	}
	if w.open {
		w.endHeader(p)
	}
}

// endHeader writes what is left of the header, in front of what the buffer has of the body. Before the answer goes out the request is
// read, for clients that listen only when they have said everything.
func (w *response) endHeader(p []byte) {
	w.open = false
	var room [maxEnd]byte
	b := room[:0]
	if !w.duplex && !w.body.skip() || w.conn.server.draining.Load() {
		w.close = true
	}
	if w.close && !w.closing {
		b = append(b, "Connection: close\r\n"...)
	}
	if !w.dated {
		b = append(append(append(b, "Date: "...), date()...), "\r\n"...)
	}
	if start := w.start(p); !w.typed && len(start) > 0 {
		b = append(append(append(b, "Content-Type: "...), http.DetectContentType(start)...), "\r\n"...)
	}
	switch {
	case w.framing == byLength:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, w.length, 10)
		b = append(b, "\r\n"...)
	case w.framing == inChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = append(b, "\r\n"...)
	if w.head {
		w.out = w.out[:w.begin]
	}
	first := len(w.out) - w.begin
	if w.framing == inChunks && first > 0 {
		b = appendSize(b, first)
		w.out = append(w.out, "\r\n"...)
	}
	w.out = slices.Insert(w.out, w.begin, b...)
}

// start returns enough of the body to see its type: what the buffer has of it and, behind that, p.
func (w *response) start(p []byte) []byte {
	first := w.out[w.begin:]
	if len(first) == 0 {
		return p
	}
	if len(p) == 0 || len(first) >= sniffed {
		return first
	}
	return slices.Concat(first, p[:min(len(p), sniffed)])
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() }

// FlushError sends what has been written. An error is the connection's.
func (w *response) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return errOver
	}
	return w.flush()
}

func (w *response) flush() error {
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	w.decide(nil)
	return w.send(nil)
}

// end sends what is left after the handler has returned.
func (w *response) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status == 0 {
		w.writeHeader(http.StatusOK)
	}
	w.over = true
	if w.framing == undecided && (!w.head || w.written > 0) && !w.hasTrailer() {
		w.framing, w.length = byLength, w.written
	}
	w.decide(nil)
	switch {
	case w.head:
	case w.framing == inChunks:
		w.out = append(w.out, "0\r\n"...)
		w.appendTrailer()
		w.out = append(w.out, "\r\n"...)
	case w.framing == byLength && w.written < w.length:
		w.close = true // or the client would wait for the rest
	}
	_ = w.send(nil)
}

// release takes the room for the answer away, of which nothing is sent any more.
func (w *response) release() {
	if !w.mu.TryLock() { // somebody writes still, though the handler has failed
		_ = w.conn.tcp.Close()
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	w.over, w.out = true, nil
}

func (w *response) hasTrailer() bool {
	if len(w.trailers) > 0 {
		return true
	}
	for name := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return true
		}
	}
	return false
}

func (w *response) appendTrailer() {
	for name, values := range w.header {
		if after, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			w.out = appendValues(w.out, http.CanonicalHeaderKey(after), values)
		} else if slices.Contains(w.trailers, name) {
			w.out = appendValues(w.out, name, values)
		}
	}
}

// put appends p where there is room, and else sends it.
func (w *response) put(p []byte) error {
	if len(w.out)+len(p) <= outSize-maxEnd {
		w.out = append(w.out, p...)
		return w.err
	}
	return w.send(p)
}

// send sends the buffer and, behind it, p. After a failure nothing more is sent, and the request's context has ended.
func (w *response) send(p []byte) error {
	if w.err == nil && len(w.out)+len(p) > 0 {
		switch {
		case len(p) == 0:
			_, w.err = w.conn.socket.Write(w.out)
		case len(w.out) == 0:
			_, w.err = w.conn.socket.Write(p)
		default:
			_, w.err = (&net.Buffers{w.out, p}).WriteTo(w.conn.tcp)
		}
		if w.err != nil {
			w.ctx.cancel()
		}
	}
	w.out = w.out[:0]
	w.begin = 0
	return w.err
}

// SetReadDeadline is for http.ResponseController, as are the following.
func (w *response) SetReadDeadline(t time.Time) error {
	w.conn.watch.mu.Lock()
	defer w.conn.watch.mu.Unlock()
	if w.conn.watch.serving != w {
		return errOver
	}
	w.conn.readBy = t
	return w.conn.tcp.SetReadDeadline(t)
}

// SetWriteDeadline bounds what is written from now on, until the next request.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.conn.watch.mu.Lock()
	defer w.conn.watch.mu.Unlock()
	if w.conn.watch.serving != w {
		return errOver
	}
	w.conn.writeBy = t
	return w.conn.tcp.SetWriteDeadline(t)
}

// EnableFullDuplex lets the handler read the request's body after it has begun to answer.
func (w *response) EnableFullDuplex() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.duplex = true
	return nil
}
