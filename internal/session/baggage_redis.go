package session

import (
	"errors"
	"strconv"

	"github.com/google/uuid"
)

// hash writes the baggage as the fields of a person's hash, but for those that adopt.lua sets itself. The sessions count as
// started with the move: no intent from before, carried out late, ends them.
func (b baggage) hash(subject string, p person) hash {
	h := hash{"u": encodeSubject(subject)}
	if p.roles != nil {
		h["r"] = *p.roles
	}
	if p.epoch > 0 {
		h["e"] = strconv.FormatInt(p.epoch, 10)
	}
	for id, s := range b.sessions {
		key := string(id[:])
		if s.cookieHash != nil {
			h["k"+key] = string(appendTime(s.cookieHash[:shortHash:shortHash], s.cookieUntil))
		}
		if s.closing.ended() {
			h["s"+key] = s.closing.encode("")
			continue
		}
		s.seq = p.seq
		h["s"+key], h["d"+key] = s.storedSession.encode(), encodeDevice(s.device)
	}
	for id, g := range b.grants {
		key := string(id[:])
		if g.closing.ended() {
			h["g"+key] = g.closing.encode(string(g.session[:]))
			continue
		}
		h["g"+key], h["h"+key] = g.storedGrant.encode(), string(g.current)+string(g.previous)
		if len(g.sealed) > 0 {
			h["n"+key] = string(g.sealed)
		}
	}
	return h
}

// encode writes the value of something that has been ended, with the session that a grant belonged to.
func (c closing) encode(session string) string {
	return string(appendTime(appendTime([]byte{'E'}, c.at), c.keep)) + session + string(c.reason)
}

// decodeClosing reads it; belongs is the size of what stands before the reason.
func decodeClosing(code string, belongs int) (c closing, session string, err error) {
	const fixed = 1 + 2*timeSize
	if len(code) <= fixed+belongs || code[0] != 'E' {
		return closing{}, "", errDamaged
	}
	return closing{at: timeAt(code, 1), keep: timeAt(code, 1+timeSize), reason: Reason(code[fixed+belongs:])}, code[fixed : fixed+belongs], nil
}

// baggage reads what hash wrote, and whatever became of it in Redis.
func (h hash) baggage() (b baggage, err error) {
	b = newBaggage()
	var errs []error
	for field, value := range h {
		if len(field) != 17 || value == "" {
			continue
		}
		id := uuid.UUID([]byte(field[1:]))
		switch field[0] {
		case 's':
			b.sessions[id], err = h.carriedSession(field[1:], value)
			errs = append(errs, err)
		case 'g':
			b.grants[id], err = h.carriedGrant(field[1:], value)
			errs = append(errs, err)
		}
	}
	for _, g := range b.grants {
		if s := b.sessions[g.session]; s != nil {
			g.device = s.device
		}
	}
	return b, errors.Join(errs...)
}

func (h hash) carriedSession(id, code string) (*carriedSession, error) {
	s := &carriedSession{}
	var errs [2]error
	if code[0] == 'L' {
		s.storedSession, errs[0] = decodeStoredSession(code)
		s.device, errs[1] = decodeDevice(h["d"+id])
	} else {
		s.closing, _, errs[0] = decodeClosing(code, 0)
	}
	if k := h["k"+id]; len(k) == shortHash+timeSize {
		s.cookieHash, s.cookieUntil = []byte(k[:shortHash]), timeAt(k, shortHash)
	}
	return s, errors.Join(errs[:]...)
}

func (h hash) carriedGrant(id, code string) (*carriedGrant, error) {
	g := &carriedGrant{}
	var err error
	if code[0] != 'L' {
		var session string
		g.closing, session, err = decodeClosing(code, len(uuid.UUID{}))
		if err == nil {
			g.session = uuid.UUID([]byte(session))
		}
		g.until = g.closing.keep
		return g, err
	}
	if g.storedGrant, err = decodeStoredGrant(code); err != nil {
		return g, err
	}
	hashes := h["h"+id]
	if len(hashes) < shortHash {
		return g, errDamaged
	}
	g.current = []byte(hashes[:shortHash])
	if len(hashes) >= 2*shortHash {
		g.previous = []byte(hashes[shortHash : 2*shortHash])
	}
	if sealed := h["n"+id]; sealed != "" {
		g.sealed = []byte(sealed)
	}
	return g, nil
}
