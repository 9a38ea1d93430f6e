package token

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// ring is what a node knows of the keys. It does not change once made.
type ring struct {
	generation int64         // the highest there is
	keys       []*signingKey // newest first, none of them expired
	byID       map[string]*signingKey
	document   []byte // the key set
	etag       string
	until      time.Time // the first key expires then; zero when there is none
}

// newRing leaves out the keys that are expired at now.
func newRing(generation int64, keys []*signingKey, now time.Time) (*ring, error) {
	r := &ring{generation: generation, byID: make(map[string]*signingKey, len(keys))}
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, k := range keys {
		if !now.Before(k.expireAt) {
			continue
		}
		j, err := describe(k.private.Public())
		if err != nil {
			return nil, fmt.Errorf("describe key of generation %d: %w", k.generation, err)
		}
		j.ID, j.Algorithm, j.Use = k.id, k.algorithm, "sig"
		set.Keys = append(set.Keys, j)
		r.keys = append(r.keys, k)
		r.byID[k.id] = k
		if r.until.IsZero() || k.expireAt.Before(r.until) {
			r.until = k.expireAt
		}
	}
	document, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode key set: %w", err)
	}
	sum := sha256.Sum256(document)
	r.document, r.etag = document, `"`+base64.RawURLEncoding.EncodeToString(sum[:18])+`"`
	return r, nil
}

// signer returns the key that signs at now, or nil.
func (r *ring) signer(now time.Time) *signingKey {
	for _, k := range r.keys {
		if k.signsAt(now) {
			return k
		}
	}
	return nil
}

// newest returns the key of the highest generation, or nil.
func (r *ring) newest() *signingKey {
	if len(r.keys) == 0 {
		return nil
	}
	return r.keys[0]
}

// JWKS returns the key set (RFC 7517 section 5), its entity tag, and for how long it may be cached: 5 minutes, or until a
// key leaves or joins it, in whole seconds. The body is shared and must not be changed.
func (s *Service) JWKS() (body []byte, etag string, maxAge time.Duration) {
	now := s.clock()
	r := s.view(now)
	maxAge = documentAge
	changes := []time.Time{r.until}
	if newest := r.newest(); newest != nil {
		changes = append(changes, newest.retireAt.Add(-s.cfg.PublishAhead))
	}
	for _, change := range changes {
		if change.After(now) {
			maxAge = min(maxAge, change.Sub(now))
		}
	}
	return r.document, r.etag, max(maxAge.Truncate(time.Second), time.Second)
}

// Mount serves the key set at GET /.well-known/jwks.json.
func (s *Service) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, r *http.Request) {
		body, etag, maxAge := s.JWKS()
		h := w.Header()
		h.Set("Content-Type", "application/jwk-set+json")
		h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(maxAge.Seconds())))
		h.Set("ETag", etag)
		h.Set("Access-Control-Allow-Origin", "*")                       // it is public
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body)) // answers If-None-Match
	})
}
