package httpd

import (
	"errors"
	"net/http"
)

// response notes the status, size and fate of an answer on its way to the client.
type response struct {
	http.ResponseWriter
	status int   // 0 until the header has been written
	bytes  int64 // of body
	err    error // the first write that failed: the client has gone
}

func (w *response) started() bool { return w.status != 0 }

// WriteHeader implements http.ResponseWriter. A second header is dropped: the first has been sent.
func (w *response) WriteHeader(status int) {
	if w.started() {
		return
	}
	if status >= 200 || status == http.StatusSwitchingProtocols { // others are informational and precede the answer
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *response) Write(p []byte) (int, error) {
	if !w.started() {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	if err != nil && err != http.ErrBodyNotAllowed && err != http.ErrContentLength && w.err == nil {
		w.err = err
	}
	return n, err
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.FlushError() } // a writer that cannot flush does not buffer for long either

// FlushError is Flush for http.ResponseController. An error may be that the client has gone.
func (w *response) FlushError() error {
	if !w.started() {
		w.status = http.StatusOK
	}
	err := http.NewResponseController(w.ResponseWriter).Flush()
	if err != nil && !errors.Is(err, http.ErrNotSupported) && w.err == nil {
		w.err = err
	}
	return err
}

// Unwrap lets http.ResponseController reach deadlines and Hijack.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
