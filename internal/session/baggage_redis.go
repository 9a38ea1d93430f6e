package session

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// hash writes the baggage as the fields of a person's hash, but for those that adopt.lua sets itself. The sessions count as
// started with the move: no intent from before, carried out late, ends them.
func (b baggage) hash(subject string, p person) (hash, error) {
	h := hash{"u": encodeSubject(subject)}
	if p.roles != nil {
		roles, err := decodeList(*p.roles)
		if err != nil {
			return nil, err
		}
		h["r"] = encodeWords(roles)
	}
	if p.epoch > 0 {
		h["e"] = strconv.FormatInt(p.epoch, 10)
	}
	for id, s := range b.sessions {
		if s.cookieHash != nil {
			h["k"+half(id)] = string(appendTime(s.cookieHash[:cookieHash:cookieHash], s.cookieUntil))
		}
		if s.closing.ended() {
			h["s"+string(id[:])] = s.closing.encode("")
			continue
		}
		s.seq = p.seq
		h["s"+string(id[:])], h["d"+half(id)] = s.carriedSessionCore.encode(), encodeDevice(s.device)
	}
	for id, g := range b.grants {
		if g.closing.ended() {
			h["g"+half(id)] = g.closing.encode(half(g.session))
			continue
		}
		h["g"+half(id)], h["h"+half(id)] = g.carriedGrantCore.encode(), string(g.current)+string(g.previous)
		if len(g.sealed) > 0 {
			h["n"+half(id)] = string(g.sealed)
		}
		if g.thumbprint != "" {
			h["t"+half(id)] = encodeThumbprint(g.thumbprint)
		}
	}
	return h, nil
}

// half is what names of fields have of most ids.
func half(id uuid.UUID) string { return string(id[8:]) }

// grantAlias is the id in SQL of a grant that has been in Redis, where there is only half of it: that half, and one of the
// session's. 124 bits of it are random.
func grantAlias(session, grant uuid.UUID) (id uuid.UUID) {
	copy(id[:8], session[8:])
	copy(id[8:], grant[8:])
	return id
}

func (s carriedSessionCore) encode() string {
	b := binary.BigEndian.AppendUint32([]byte{'L', s.class}, uint32(s.seq))
	for _, t := range []time.Time{s.used, s.until, s.end, s.auth, s.created} {
		b = appendTime(b, t)
	}
	return string(b) + encodeSessionTail(Start{ACR: s.acr, ClientID: s.client, AMR: s.amr})
}

func decodeCarriedSession(code string) (s carriedSessionCore, err error) {
	if len(code) < sessionTail {
		return carriedSessionCore{}, errDamaged
	}
	s.class, s.seq = code[1], int64(binary.BigEndian.Uint32([]byte(code[2:sessionUsed])))
	s.used, s.until, s.end = timeAt(code, sessionUsed), timeAt(code, sessionUntil), timeAt(code, sessionEnd)
	s.auth, s.created = timeAt(code, sessionAuth), timeAt(code, sessionCreated)
	if parts := strings.SplitN(code[sessionTail:], "\x00", 3); len(parts) == 3 {
		s.client = decodeClient(parts[1])
	}
	s.acr, s.amr, err = decodeSessionTail(code[sessionTail:])
	return s, err
}

// Offsets into a live grant.
const (
	grantGeneration = 1
	grantUntil      = grantGeneration + 4
	grantEnd        = grantUntil + timeSize
	grantRotated    = grantEnd + timeSize
	grantAuth       = grantRotated + timeSize
	grantSession    = grantAuth + timeSize
	grantEpoch      = grantSession + 8
	grantTail       = grantEpoch + 4
)

func (g carriedGrantCore) encode() string {
	b := binary.BigEndian.AppendUint32([]byte{'L'}, uint32(g.generation))
	for _, t := range []time.Time{g.until, g.end, g.rotated, g.auth} {
		b = appendTime(b, t)
	}
	b = append(b, half(g.session)...)
	b = binary.BigEndian.AppendUint32(b, uint32(g.issuedEpoch))
	return string(b) + encodeGrantTail(Start{ClientID: g.client, Scope: g.scope, Audience: g.audience})
}

func decodeCarriedGrant(code string) (g carriedGrantCore, session string, err error) {
	if len(code) < grantTail {
		return carriedGrantCore{}, "", errDamaged
	}
	g.generation = int64(binary.BigEndian.Uint32([]byte(code[grantGeneration:grantUntil])))
	g.until, g.end, g.rotated = timeAt(code, grantUntil), timeAt(code, grantEnd), timeAt(code, grantRotated)
	g.auth = timeAt(code, grantAuth)
	g.issuedEpoch = int64(binary.BigEndian.Uint32([]byte(code[grantEpoch:grantTail])))
	g.client, g.scope, g.audience, err = decodeGrantTail(code[grantTail:])
	return g, code[grantSession:grantEpoch], err
}

// encode writes the value of something that has been ended, with half the id of the session that a grant belonged to.
func (c closing) encode(session string) string {
	return string(appendTime(appendTime([]byte{'E'}, c.at), c.keep)) + session + string(c.reason)
}

// decodeClosing reads it; belongs is the size of what stands before the reason.
func decodeClosing(code string, belongs int) (c closing, session string, err error) {
	const fixed = 1 + 2*timeSize
	if len(code) <= fixed+belongs {
		return closing{}, "", errDamaged
	}
	return closing{at: timeAt(code, 1), keep: timeAt(code, 1+timeSize), reason: Reason(code[fixed+belongs:])}, code[fixed : fixed+belongs], nil
}

// baggage reads what hash wrote, and whatever became of it in Redis.
func (h hash) baggage() (baggage, error) {
	b := newBaggage()
	whole := map[string]uuid.UUID{} // ids of sessions by their half
	var errs []error
	for field, value := range h {
		if len(field) != 17 || field[0] != 's' || value == "" {
			continue
		}
		id := uuid.UUID([]byte(field[1:]))
		s, err := h.carriedSession(half(id), value)
		errs = append(errs, err)
		b.sessions[id], whole[half(id)] = s, id
	}
	for field, value := range h {
		if len(field) != 9 || field[0] != 'g' || value == "" {
			continue
		}
		g, session, err := h.carriedGrant(field[1:], value)
		errs = append(errs, err)
		var there bool
		if g.session, there = whole[session]; !there {
			continue // and so it is worth nothing
		}
		g.device = b.sessions[g.session].device
		var id uuid.UUID
		copy(id[8:], field[1:])
		b.grants[grantAlias(g.session, id)] = g
	}
	return b, errors.Join(errs...)
}

func (h hash) carriedSession(id, code string) (*carriedSession, error) {
	s := &carriedSession{}
	var errs [2]error
	if code[0] == 'L' {
		s.carriedSessionCore, errs[0] = decodeCarriedSession(code)
		s.device, errs[1] = decodeDevice(h["d"+id])
	} else {
		s.closing, _, errs[0] = decodeClosing(code, 0)
	}
	if k := h["k"+id]; len(k) == cookieHash+timeSize {
		s.cookieHash, s.cookieUntil = []byte(k[:cookieHash]), timeAt(k, cookieHash)
	}
	return s, errors.Join(errs[:]...)
}

func (h hash) carriedGrant(id, code string) (g *carriedGrant, session string, err error) {
	g = &carriedGrant{}
	if code[0] != 'L' {
		g.closing, session, err = decodeClosing(code, len(id))
		g.until = g.closing.keep
		return g, session, err
	}
	if g.carriedGrantCore, session, err = decodeCarriedGrant(code); err != nil {
		return g, "", err
	}
	hashes := h["h"+id]
	if len(hashes) < tokenHash {
		return g, "", errDamaged
	}
	g.current = []byte(hashes[:tokenHash])
	if len(hashes) >= 2*tokenHash {
		g.previous = []byte(hashes[tokenHash : 2*tokenHash])
	}
	if sealed := h["n"+id]; sealed != "" {
		g.sealed = []byte(sealed)
	}
	g.thumbprint = decodeThumbprint(h["t"+id])
	return g, session, nil
}
