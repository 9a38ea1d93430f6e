package http1

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
)

// body is what follows a head, as far as Content-Length says. Reading is safe for one goroutine at a time, which may outlive the handler:
// then it reads nothing more.
type body struct {
	mu     sync.Mutex
	conn   *conn
	ctx    *requestContext
	left   int64
	closed bool
	err    error // of the connection: there will be nothing more
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.read(p)
}

func (b *body) read(p []byte) (int, error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.left == 0:
		return 0, io.EOF
	}
	n, err := b.conn.read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	switch {
	case b.left == 0:
		return n, io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	if b.err = err; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		b.ctx.cancel() // the client has gone
	}
	return n, err
}

// Close implements io.Closer. What has not been read is skipped after the answer.
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// done reports whether all of it has been read. It does not wait for a read that is going on, and says no then.
func (b *body) done() bool {
	if !b.mu.TryLock() {
		return false
	}
	defer b.mu.Unlock()
	return b.left == 0
}

// skip reads what is left, if that is little, and reports whether nothing is left any more.
func (b *body) skip() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return true
	}
	if b.left > maxSkip {
		return false
	}
	return b.drain()
}

func (b *body) drain() bool {
	var scratch [4 << 10]byte
	for b.left > 0 {
		if _, err := b.read(scratch[:]); err != nil && b.left > 0 {
			return false
		}
	}
	return true
}

// end closes the body when its handler has returned. Somebody who reads it still is not waited for: the client may never send the rest.
func (b *body) end() {
	if !b.mu.TryLock() {
		b.conn.setReadBy(past)
		b.mu.Lock()
	}
	b.closed = true
	b.mu.Unlock()
}
