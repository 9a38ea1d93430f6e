package fault

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// ContentType is the media type of a problem document (RFC 9457, section 6.1).
const ContentType = "application/problem+json"

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
