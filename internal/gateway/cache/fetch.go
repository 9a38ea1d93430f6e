package cache

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/fault"
)

// fetch asks the service, gives its answer to the client and keeps it, where that may be. With an older answer it asks whether that
// is still right. Who waits for the flight, which may be nil, is told as soon as it is clear what there is for them.
func (x *exchange) fetch(e *entry, f *flight, why string) error {
	for {
		rec := &recorder{exchange: x, stale: e, flight: f, why: why, asked: x.deps.Clock(), header: http.Header{}}
		r := x.r.WithContext(x.r.Context())
		r.Header = x.forwarded(e)
		x.c.NoStatic = e != nil && x.mayHideErrors(e)
		err := x.next(rec, r, x.c)
		if err == nil {
			err = rec.finish()
		}
		switch {
		case err == errChanged:
			e = nil // a 304 about another answer than ours
			continue
		case err != nil && !rec.passing:
			if isServices(err) {
				f.tell(nil, err)
			}
			return x.failed(e, err)
		}
		return err
	}
}

// tell lands a flight, if there is one.
func (f *flight) tell(got *entry, err error) {
	if f != nil {
		f.land(got, err)
	}
}

// isServices reports whether a failure is the service's, and would be the same for everybody. What is wrong with one request, or a
// client that left, is no concern of those who wait.
func isServices(err error) bool {
	f, ok := errors.AsType[*fault.Fault](err)
	return ok && (f.Kind() == fault.Unavailable || f.Kind() == fault.BadGateway || f.Kind() == fault.Timeout)
}

// forwarded is the header of the request to the service: with our own conditions instead of the client's, so that there is a whole
// answer to keep, and without what services take for a host and no key holds.
func (x *exchange) forwarded(e *entry) http.Header {
	h := x.request.header.Clone()
	for _, name := range [...]string{
		"If-None-Match", "If-Modified-Since", "If-Range", "X-Host", "X-Http-Host-Override", "X-Original-Host", "X-Original-Url", "X-Rewrite-Url",
	} {
		delete(h, name)
	}
	if e == nil {
		return h
	}
	if tag := e.header["Etag"]; len(tag) == 1 {
		h["If-None-Match"] = tag
	}
	if modified := e.header["Last-Modified"]; len(modified) == 1 {
		h["If-Modified-Since"] = modified
	}
	return h
}

// changedError says that a 304 was about another answer.
type changedError struct{}

// Error implements error.
func (changedError) Error() string { return "cache: the service confirms an answer that is not kept" }

var errChanged error = changedError{}

// recorder takes an answer of the service. One that may be kept is read to its end first, so that no slow client keeps others waiting;
// anything else goes to the client as it comes.
type recorder struct {
	*exchange
	stale  *entry
	flight *flight
	why    string
	asked  time.Time
	header http.Header // of the service's answer

	status  int
	kept    *entry // what the answer becomes; nil where it is not kept
	body    []byte
	passing bool // the answer goes to the client as it comes
	hidden  bool // an error of the service that a stale answer stands in for
}

// Header implements http.ResponseWriter.
func (rec *recorder) Header() http.Header { return rec.header }

// WriteHeader implements http.ResponseWriter.
func (rec *recorder) WriteHeader(status int) {
	if status < http.StatusOK {
		rec.inform(status)
		return
	}
	if rec.status != 0 {
		return
	}
	rec.status = status
	switch {
	case status == http.StatusNotModified && rec.stale != nil:
		return
	case status >= 500 && rec.stale != nil && rec.mayHideErrors(rec.stale):
		rec.hidden = true
		return
	}
	length, err := strconv.ParseInt(rec.header.Get("Content-Length"), 10, 64)
	if err != nil || length <= rec.cfg.MaxObject {
		rec.kept = rec.newEntry(rec.request, status, rec.header, rec.asked, rec.deps.Clock())
	}
	if rec.kept == nil {
		rec.deps.Store.hurry(rec.key, rec.deps.Clock())
		rec.pass()
	}
}

// pass lets the answer through, and everybody else ask for themselves.
func (rec *recorder) pass() {
	rec.passing, rec.kept = true, nil
	rec.flight.tell(nil, nil)
	h := rec.w.Header()
	merge(h, rec.header)
	h["Cache-Status"] = append(slices.Clip(h["Cache-Status"]), "sumun; fwd="+rec.why)
	rec.w.WriteHeader(rec.status)
}

// inform passes an informational answer on.
func (rec *recorder) inform(status int) {
	h := rec.w.Header()
	before := h.Clone()
	merge(h, rec.header)
	rec.w.WriteHeader(status)
	clear(h)
	maps.Copy(h, before)
}

// Write implements http.ResponseWriter.
func (rec *recorder) Write(p []byte) (int, error) {
	rec.WriteHeader(http.StatusOK)
	switch {
	case rec.passing:
		return rec.w.Write(p)
	case rec.kept == nil:
		return len(p), nil
	case int64(len(rec.body)+len(p)) > rec.cfg.MaxObject:
		rec.pass()
		if _, err := rec.w.Write(rec.body); err != nil {
			return 0, err
		}
		rec.body = nil
		return rec.w.Write(p)
	}
	rec.body = append(rec.body, p...)
	return len(p), nil
}

// FlushError lets http.ResponseController flush what is not held back.
func (rec *recorder) FlushError() error {
	if !rec.passing {
		return nil
	}
	return http.NewResponseController(rec.w).Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.w }

// finish keeps the answer that has been read, and gives it to the client.
func (rec *recorder) finish() error {
	rec.WriteHeader(http.StatusOK)
	switch {
	case rec.passing:
		for name, values := range rec.header { // trailers
			if strings.HasPrefix(name, http.TrailerPrefix) || slices.Contains(rec.header["Trailer"], name) {
				rec.w.Header()[name] = values
			}
		}
		return nil
	case rec.hidden:
		rec.flight.tell(nil, nil)
		rec.deps.Count("stale")
		return rec.give(rec.stale, "hit; ttl="+seconds(rec.stale.left(rec.deps.Clock()))+"; detail=stale-if-error; fwd-status="+strconv.Itoa(rec.status))
	case rec.status == http.StatusNotModified:
		return rec.confirmed()
	}
	e := rec.kept
	e.body = slices.Clip(rec.body)
	e.header = rec.ownHeader()
	rec.deps.Store.put(rec.key, e)
	rec.flight.tell(e, nil)
	return rec.give(e, "fwd="+rec.why+"; stored")
}

// ownHeader is the header of the answer, without what is about this exchange only.
func (rec *recorder) ownHeader() http.Header {
	own := make(http.Header, len(rec.header))
	for name, values := range rec.header {
		if name == "Connection" || name == "Trailer" || strings.HasPrefix(name, http.TrailerPrefix) {
			continue
		}
		own[name] = slices.Clip(slices.Clone(values))
	}
	return own
}

// confirmed gives the older answer, which the service said is still right.
func (rec *recorder) confirmed() error {
	h := rec.ownHeader()
	e := rec.freshened(rec.stale, rec.request, h, rec.asked, rec.deps.Clock())
	if e == nil {
		return errChanged
	}
	rec.deps.Store.put(rec.key, e)
	rec.flight.tell(e, nil)
	return rec.give(e, "fwd="+rec.why+"; fwd-status=304; stored")
}
