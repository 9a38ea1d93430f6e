package upstream

import (
	"io"
	"net/http"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

const (
	maxChunkLine = 4 << 10  // of a chunk's size and its extensions, which are ignored
	maxTrailer   = 16 << 10 // bytes
)

// body reads the body of an answer from its connection.
type body struct {
	c       *conn
	left    int64 // of the body, or of the chunk that is being read
	framing framing
	begun   bool // the first chunk
	trailer []field
}

// framing says how the end of a body is known (RFC 9112, section 6.3).
type framing uint8

const (
	byLength framing = iota
	byChunks
	byClose // the stream ends; what was cut looks whole, so such answers are passed on and never repeated
)

// newBody returns the body of an answer to a request of the given method.
func newBody(c *conn, method string) body {
	b := body{c: c}
	switch h := &c.in; {
	case method == http.MethodHead || h.status == http.StatusNotModified:
	case h.status == http.StatusNoContent:
		h.close = h.close || h.chunked || h.length > 0 // a body that may not be might follow all the same
	case h.chunked:
		b.framing = byChunks
	case h.length >= 0:
		b.left = h.length
	default:
		b.framing, h.close = byClose, true
	}
	return b
}

// next returns what comes next, either part of the connection's buffer or read into scratch; both are valid until the next call.
// At the end it returns io.EOF and nothing else; a stream that ends before the body does is io.ErrUnexpectedEOF.
func (b *body) next(scratch []byte) ([]byte, error) {
	switch b.framing {
	case byClose:
		return b.take(scratch)
	case byChunks:
		if b.left == 0 {
			if err := b.nextChunk(); err != nil {
				return nil, err
			}
		}
	case byLength:
		if b.left == 0 {
			return nil, io.EOF
		}
	}
	if int64(len(scratch)) > b.left {
		scratch = scratch[:b.left]
	}
	p, err := b.take(scratch)
	b.left -= int64(len(p))
	return p, noEOF(err)
}

// take returns what is buffered, or else reads once. Where the length is known it returns no more than what is left.
func (b *body) take(scratch []byte) ([]byte, error) {
	if p := b.c.buffered(); len(p) > 0 {
		if b.framing != byClose && int64(len(p)) > b.left {
			p = p[:b.left]
		}
		b.c.start += len(p)
		return p, nil
	}
	n, err := b.c.Read(scratch)
	return scratch[:n], discardIf(n > 0, err)
}

// nextChunk reads the line that begins a chunk, and the end of the one before. After the last chunk it reads the trailer and
// returns io.EOF (RFC 9112, section 7.1).
func (b *body) nextChunk() error {
	if b.begun {
		if line, err := b.c.readLine(2); err != nil {
			return err
		} else if len(line) > 0 {
			return malformed("chunk that is longer than its size")
		}
	}
	b.begun = true
	line, err := b.c.readLine(maxChunkLine)
	if err != nil {
		return err
	}
	if b.left, err = chunkSize(line); err != nil || b.left > 0 {
		return err
	}
	b.framing = byLength // nothing is left, so that another call returns io.EOF
	return b.readTrailer()
}

func (b *body) readTrailer() error {
	block, err := b.c.readBlock(maxTrailer)
	if err != nil {
		return noEOF(err)
	}
	if b.trailer, err = parseFields(block, nil); err != nil {
		return err
	}
	return io.EOF
}

// chunkSize parses the size in front of a chunk. Extensions are ignored, within what may stand in a line.
func chunkSize(line []byte) (n int64, err error) {
	digits := 0
	for _, c := range line {
		var d byte
		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c >= 'a' && c <= 'f':
			d = c - 'a' + 10
		case c >= 'A' && c <= 'F':
			d = c - 'A' + 10
		case digits > 0 && (c == ';' || c == ' ' || c == '\t') && syntax.Text(string(line)):
			return n, validExtension(line[digits:])
		default:
			return 0, malformed("chunk size that is no number")
		}
		if digits++; digits > 15 {
			return 0, malformed("chunk size that is too large")
		}
		n = n<<4 | int64(d)
	}
	if digits == 0 {
		return 0, malformed("chunk size that is no number")
	}
	return n, nil
}

// validExtension refuses what follows a chunk's size and is no extension.
func validExtension(rest []byte) error {
	if text := syntax.Trim(string(rest)); text != "" && text[0] != ';' {
		return malformed("chunk size that is no number")
	}
	return nil
}

// forbiddenTrailer reports whether a field has no meaning after the body, or a dangerous one (RFC 9110, section 6.5.1).
func forbiddenTrailer(name string) bool {
	switch name {
	case "Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Host", "Set-Cookie", "Authorization", "Location",
		"Cache-Control", "Www-Authenticate", "Date", "Vary", "Age", "Expires":
		return true
	}
	return hopByHop(name)
}
