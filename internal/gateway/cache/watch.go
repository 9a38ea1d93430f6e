package cache

import (
	"io"
	"net/http"
)

// watcher sees the header of an answer as it goes out.
type watcher struct {
	http.ResponseWriter
	onHeader func(status int, h http.Header)
	seen     bool
}

// WriteHeader implements http.ResponseWriter.
func (w *watcher) WriteHeader(status int) {
	if status >= http.StatusOK && !w.seen {
		w.seen = true
		w.onHeader(status, w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *watcher) Write(p []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *watcher) ReadFrom(from io.Reader) (int64, error) {
	w.begin()
	return io.Copy(w.ResponseWriter, from)
}

func (w *watcher) begin() {
	if !w.seen {
		w.seen = true
		w.onHeader(http.StatusOK, w.Header())
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *watcher) Unwrap() http.ResponseWriter { return w.ResponseWriter }
