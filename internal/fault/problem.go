package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ContentType is the media type of a problem document (RFC 9457, section 6.1).
const ContentType = "application/problem+json"

// maxProblem bounds what is read of another server's problem document, in bytes.
const maxProblem = 64 << 10

// Problem is the document a failed request is answered with (RFC 9457), with the members code, request_id and errors added.
// The doc tags describe it to clients, in the OpenAPI document.
type Problem struct {
	Type      string  `json:"type" format:"uri-reference" doc:"Refers to the description of the code." example:"/docs/errors#session.ended"`
	Title     string  `json:"title" doc:"What the code means; the same in every occurrence."`
	Status    int     `json:"status" doc:"The HTTP status."`
	Detail    string  `json:"detail,omitempty" doc:"What happened this time, for people."`
	Instance  string  `json:"instance,omitempty" format:"uri-reference" doc:"Identifies the occurrence; not used, see request_id."`
	Code      string  `json:"code" doc:"Permanent and meant for programs." example:"session.ended"`
	RequestID string  `json:"request_id,omitempty" doc:"The id under which the request was logged."`
	Errors    []Field `json:"errors,omitempty" doc:"The values at fault."`
}

// Problem returns the document that describes the fault. The cause is not in it.
func (f *Fault) Problem(requestID string) Problem {
	return Problem{
		Type:      "/docs/errors#" + f.code,
		Title:     f.title,
		Status:    f.Status(),
		Detail:    f.Message(),
		Code:      f.code,
		RequestID: requestID,
		Errors:    f.Fields(),
	}
}

// WriteProblem answers with the fault's status and problem document, the headers that belong to it, and Cache-Control:
// no-store. Headers that described another body are removed. It must be called before anything has been written.
func (f *Fault) WriteProblem(w http.ResponseWriter, requestID string) {
	h := w.Header()
	f.SetHeaders(h)
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Disposition", "Etag", "Last-Modified"} {
		h.Del(name)
	}
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(f.Status())
	// A write that fails means the client has gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(f.Problem(requestID))
}

// SetHeaders sets Retry-After and WWW-Authenticate where the fault has them.
func (f *Fault) SetHeaders(h http.Header) {
	if f.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(f.retryAfter/time.Second), 10))
	}
	if f.challenge != "" {
		h.Set("WWW-Authenticate", f.challenge)
	}
}

// FromResponse is the way back: it returns nil for a status below 400, and otherwise the fault that the answer describes,
// or, where it is no problem document of ours, one whose kind is that of the status and whose code is
// "upstream.status_<status>". It reads at most 64 KiB of the body and does not close it. The answer is not trusted: codes
// are checked and messages shortened.
func FromResponse(resp *http.Response) error {
	if resp.StatusCode < 400 {
		return nil
	}
	f := &Fault{kind: KindOf(resp.StatusCode)}
	p, err := readProblem(resp)
	if err != nil {
		f.code = fmt.Sprintf("upstream.status_%d", resp.StatusCode)
		f.title = "A service answered with an error."
		f.cause = fmt.Errorf("answer with status %d: %w", resp.StatusCode, err)
	} else {
		f.code, f.title, f.detail = p.Code, clip(p.Title), clip(p.Detail)
		f.fields = p.Errors
		if p.RequestID != "" {
			f.cause = fmt.Errorf("answered under request id %q", clip(p.RequestID))
		}
	}
	f.challenge = resp.Header.Get("WWW-Authenticate")
	if d, ok := retryAfter(resp.Header); ok {
		f = f.After(d)
	}
	return f
}

func readProblem(resp *http.Response) (Problem, error) {
	var p Problem
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != ContentType {
		return p, errors.New("no problem document")
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxProblem)).Decode(&p); err != nil {
		return p, fmt.Errorf("read problem document: %w", err)
	}
	if !validCode(p.Code) || p.Title == "" {
		return p, errors.New("problem document without a code or title")
	}
	for i, field := range p.Errors {
		p.Errors[i] = Field{Name: clip(field.Name), Code: clip(field.Code), Message: clip(field.Message)}
	}
	return p, nil
}

// retryAfter reads Retry-After, a number of seconds or a date (RFC 9110, section 10.2.3), at most a day.
func retryAfter(h http.Header) (time.Duration, bool) {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, 24*time.Hour), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	now := time.Now()
	if date, err := http.ParseTime(h.Get("Date")); err == nil { // the other side's clock, which set both
		now = date
	}
	return min(at.Sub(now), 24*time.Hour), true
}

// clip shortens untrusted text to 1 KiB of valid UTF-8.
func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), 1<<10)], "")
}
