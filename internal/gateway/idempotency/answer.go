package idempotency

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// answer is what is kept of an answer.
type answer struct {
	Status int         `json:"status"`
	Header http.Header `json:"header"`
	Body   []byte      `json:"body"`
}

// seal returns the answer as the store keeps it: only who has the key of the request can read it.
func (a answer) seal(key [32]byte) ([]byte, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, text, nil), nil
}

// unseal reads what seal made.
func unseal(key [32]byte, sealed []byte) (answer, error) {
	var a answer
	aead, err := newAEAD(key)
	if err != nil {
		return a, err
	}
	text, err := aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return a, fmt.Errorf("read kept answer: %w", err)
	}
	return a, json.Unmarshal(text, &a)
}

// newAEAD makes AES-256-GCM with random nonces, which it keeps in front.
func newAEAD(key [32]byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// replay writes the answer again. What the stages before have set for this request stays.
func (a answer) replay(w http.ResponseWriter) error {
	h := w.Header()
	for name, values := range a.Header {
		if _, there := h[name]; !there {
			h[name] = values
		}
	}
	h["Idempotency-Replayed"] = []string{"true"}
	if _, typed := h["Content-Type"]; !typed {
		h["Content-Type"] = nil // or net/http would guess
	}
	w.WriteHeader(a.Status)
	_, err := w.Write(a.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	return nil
}

// recorder holds an answer back until it has been kept. What is larger than limit, or made of events, goes out as it comes.
type recorder struct {
	http.ResponseWriter
	before  map[string]bool // what w had before, which belongs to this request alone
	limit   int64
	status  int
	body    []byte
	through bool
}

func newRecorder(w http.ResponseWriter, limit int64) *recorder {
	rec := &recorder{ResponseWriter: w, limit: limit, before: map[string]bool{}}
	for name := range w.Header() {
		rec.before[name] = true
	}
	return rec
}

// WriteHeader implements http.ResponseWriter.
func (rec *recorder) WriteHeader(status int) {
	if status < http.StatusOK {
		rec.ResponseWriter.WriteHeader(status)
		return
	}
	if rec.status != 0 {
		return
	}
	rec.status = status
	h := rec.Header()
	length, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err == nil && length > rec.limit || strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") {
		rec.letThrough()
	}
}

// Write implements http.ResponseWriter.
func (rec *recorder) Write(p []byte) (int, error) {
	rec.WriteHeader(http.StatusOK)
	if !rec.through && int64(len(rec.body)+len(p)) > rec.limit {
		rec.letThrough()
		if _, err := rec.ResponseWriter.Write(rec.body); err != nil {
			return 0, err
		}
		rec.body = nil
	}
	if rec.through {
		return rec.ResponseWriter.Write(p)
	}
	rec.body = append(rec.body, p...)
	return len(p), nil
}

func (rec *recorder) letThrough() {
	rec.through = true
	rec.ResponseWriter.WriteHeader(rec.status)
}

// FlushError lets http.ResponseController flush what is not held back.
func (rec *recorder) FlushError() error {
	if !rec.through {
		return nil
	}
	return http.NewResponseController(rec.ResponseWriter).Flush()
}

// Unwrap lets http.ResponseController reach the connection.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

// answer returns what has been held back, without what is about this exchange only.
func (rec *recorder) answer() answer {
	rec.WriteHeader(http.StatusOK)
	h := maps.Clone(rec.Header())
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return rec.before[name] || name == "Connection" || name == "Trailer" || strings.HasPrefix(name, http.TrailerPrefix)
	})
	for name, values := range h {
		h[name] = slices.Clone(values)
	}
	return answer{Status: rec.status, Header: h, Body: rec.body}
}

// send writes what has been held back.
func (rec *recorder) send() {
	if rec.through {
		return
	}
	rec.ResponseWriter.WriteHeader(rec.status)
	if _, err := rec.ResponseWriter.Write(rec.body); err != nil && err != http.ErrBodyNotAllowed {
		panic(http.ErrAbortHandler) // the client has gone
	}
}
