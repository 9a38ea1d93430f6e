package compress

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/sumunio/sumun/internal/gateway/stage"
)

// New returns the stage of a route, nil where cfg asks for nothing. It stands behind the cache, so that what is kept is compressed once.
func New(cfg Config) stage.Stage {
	if !cfg.Enabled {
		return nil
	}
	s := &shrinker{cfg: cfg}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			if r.Header["Upgrade"] != nil || strings.Contains(strings.Join(r.Header["Cache-Control"], ","), "no-transform") {
				return next(w, r, c)
			}
			out := &writer{ResponseWriter: w, shrinker: s, coding: Choose(r.Header["Accept-Encoding"], "zstd", "gzip"), head: r.Method == http.MethodHead}
			if err := next(out, r, c); err != nil {
				return err
			}
			return out.close() // after a panic the end is missing, and shows it
		}
	}
}

// shrinker is the stage of a route.
type shrinker struct {
	cfg         Config
	gzips, zsts sync.Pool
}

// encoder is a gzip.Writer or a zstd.Encoder.
type encoder interface {
	io.WriteCloser
	Flush() error
	Reset(io.Writer)
}

// Levels and window are those that cost little more time than sending the bytes; a window of 512 KiB is within what every client must
// take (RFC 9659).
const (
	gzipLevel  = 5
	zstdWindow = 512 << 10
)

// encoder returns one that writes to w.
func (s *shrinker) encoder(coding string, w io.Writer) (encoder, error) {
	if e, ok := s.pool(coding).Get().(encoder); ok {
		e.Reset(w)
		return e, nil
	}
	if coding == "gzip" {
		return gzip.NewWriterLevel(w, gzipLevel)
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow),
		zstd.WithLowerEncoderMem(true))
}

func (s *shrinker) pool(coding string) *sync.Pool {
	if coding == "gzip" {
		return &s.gzips
	}
	return &s.zsts
}

// writer compresses an answer, once its header shows that it should.
type writer struct {
	http.ResponseWriter
	*shrinker
	coding  string // "" for none
	head    bool
	begun   bool
	encoder encoder // nil: as it is
	err     error
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK && !w.begun {
		w.begun = true
		w.decide(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) decide(status int, h http.Header) {
	if status == http.StatusNotModified {
		h["Vary"] = append(h["Vary"][:len(h["Vary"]):len(h["Vary"])], "Accept-Encoding") // as the whole answer has
		return
	}
	if !w.shrinks(status, h) {
		return
	}
	h["Vary"] = append(h["Vary"][:len(h["Vary"]):len(h["Vary"])], "Accept-Encoding")
	if w.coding == "" {
		return
	}
	if !w.head {
		if w.encoder, w.err = w.shrinker.encoder(w.coding, w.ResponseWriter); w.err != nil {
			return
		}
	}
	h["Content-Encoding"] = []string{w.coding}
	delete(h, "Content-Length")
	delete(h, "Accept-Ranges")
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h["Etag"] = []string{"W/" + tag}
	}
}

// shrinks reports whether an answer is one that is compressed for who accepts that.
func (w *writer) shrinks(status int, h http.Header) bool {
	if status == http.StatusNoContent || status == http.StatusPartialContent || h["Content-Encoding"] != nil || h["Content-Range"] != nil ||
		strings.Contains(strings.ToLower(strings.Join(h["Cache-Control"], ",")), "no-transform") || !w.cfg.covers(h.Get("Content-Type")) {
		return false
	}
	length, err := strconv.Atoi(h.Get("Content-Length"))
	return err != nil || length >= w.cfg.MinSize
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	w.begin()
	switch {
	case w.err != nil:
		return 0, w.err
	case w.encoder != nil:
		return w.encoder.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *writer) ReadFrom(from io.Reader) (int64, error) {
	w.begin()
	switch {
	case w.err != nil:
		return 0, w.err
	case w.encoder != nil:
		return io.Copy(struct{ io.Writer }{w.encoder}, from)
	}
	return io.Copy(w.ResponseWriter, from)
}

func (w *writer) begin() {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
}

// FlushError lets http.ResponseController send what has come so far.
func (w *writer) FlushError() error {
	if w.encoder != nil {
		if err := w.encoder.Flush(); err != nil {
			return err
		}
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// close ends the answer.
func (w *writer) close() error {
	if w.encoder == nil {
		return w.err
	}
	if err := w.encoder.Close(); err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	w.encoder.Reset(nil)
	w.pool(w.coding).Put(w.encoder)
	return nil
}
