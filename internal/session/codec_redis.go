package session

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

// The values in a person's hash, as lua/common.lua describes them. Go writes new ones whole; the scripts change times.

var errDamaged = errors.New("a session in Redis is damaged")

// hash is everything about a person.
type hash map[string]string

const (
	timeSize  = 7
	shortHash = 16 // bytes of a hash that are kept
)

func appendTime(b []byte, t time.Time) []byte { return appendNumber(b, sqldb.Micros(t)) }

func appendNumber(b []byte, n int64) []byte {
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(n))
	return append(b, wide[1:]...)
}

func timeAt(s string, at int) time.Time { return sqldb.Time(numberAt(s, at)) }

func numberAt(s string, at int) int64 {
	var wide [8]byte
	copy(wide[1:], s[at:at+timeSize])
	return int64(binary.BigEndian.Uint64(wide[:]))
}

// Offsets into a live session.
const (
	sessionUsed    = 6
	sessionUntil   = 13
	sessionEnd     = 20
	sessionAuth    = 27
	sessionCreated = 34
	sessionTail    = 41
)

// storedSession is what a person's hash holds of a live session, besides its device and cookie.
type storedSession struct {
	class                          byte  // of its device
	seq                            int64 // intents at its start
	used, until, end, auth, create time.Time
	acr, client                    string
	amr                            []string
}

func encodeSession(o *opening) string {
	return storedSession{
		class: deviceClass(o.start.Device.UserAgent), seq: o.person.seq,
		used: o.now, until: o.idle, end: o.end, auth: o.start.AuthTime, create: o.now,
		acr: o.start.ACR, client: o.start.ClientID, amr: o.start.AMR,
	}.encode()
}

func (s storedSession) encode() string {
	b := binary.BigEndian.AppendUint32([]byte{'L', s.class}, uint32(s.seq))
	for _, t := range []time.Time{s.used, s.until, s.end, s.auth, s.create} {
		b = appendTime(b, t)
	}
	return string(b) + strings.Join([]string{s.acr, encodeClient(s.client), encodeAll(s.amr)}, "\x00")
}

func decodeStoredSession(code string) (s storedSession, err error) {
	if len(code) < sessionTail || code[0] != 'L' {
		return storedSession{}, errDamaged
	}
	s.class, s.seq = code[1], int64(binary.BigEndian.Uint32([]byte(code[2:sessionUsed])))
	s.used, s.until, s.end = timeAt(code, sessionUsed), timeAt(code, sessionUntil), timeAt(code, sessionEnd)
	s.auth, s.create = timeAt(code, sessionAuth), timeAt(code, sessionCreated)
	parts := strings.SplitN(code[sessionTail:], "\x00", 3)
	if len(parts) != 3 {
		return storedSession{}, errDamaged
	}
	s.acr, s.client = parts[0], decodeClient(parts[1])
	s.amr, err = decodeAll(parts[2])
	return s, err
}

// decodeSession reads a live session and its device.
func decodeSession(id []byte, code, device string) (Session, error) {
	s, err := decodeStoredSession(code)
	if err != nil {
		return Session{}, err
	}
	one := Session{
		ID: uuid.UUID(id).String(), CreatedAt: s.create, LastUsedAt: s.used, AuthTime: s.auth, ExpiresAt: s.until, AMR: s.amr, ACR: s.acr,
	}
	one.Device, err = decodeDevice(device)
	return one, err
}

func decodeSessionTail(tail string) (acr string, amr []string, err error) {
	parts := strings.SplitN(tail, "\x00", 3)
	if len(parts) != 3 {
		return "", nil, errDamaged
	}
	amr, err = decodeAll(parts[2])
	return parts[0], amr, err
}

// storedGrant is what a person's hash holds of a live grant, besides its tokens.
type storedGrant struct {
	generation                int64
	until, end, rotated, auth time.Time
	session                   uuid.UUID
	issuedEpoch               int64
	client, scope             string
	audience                  []string
}

// Offsets into a live grant.
const (
	grantUntil   = 1 + timeSize
	grantEnd     = grantUntil + timeSize
	grantRotated = grantEnd + timeSize
	grantAuth    = grantRotated + timeSize
	grantSession = grantAuth + timeSize
	grantEpoch   = grantSession + 16
	grantTail    = grantEpoch + 4
)

func encodeGrant(o *opening) string {
	return storedGrant{
		until: o.idle, end: o.end, rotated: o.now, auth: o.start.AuthTime, session: o.id, issuedEpoch: o.session.Epoch,
		client: o.start.ClientID, scope: o.start.Scope, audience: o.start.Audience,
	}.encode()
}

func (g storedGrant) encode() string {
	b := appendNumber([]byte{'L'}, g.generation)
	for _, t := range []time.Time{g.until, g.end, g.rotated, g.auth} {
		b = appendTime(b, t)
	}
	b = append(b, g.session[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(g.issuedEpoch))
	return string(b) + strings.Join([]string{encodeClient(g.client), g.scope, encodeAll(g.audience)}, "\x00")
}

func decodeStoredGrant(code string) (g storedGrant, err error) {
	if len(code) < grantTail || code[0] != 'L' {
		return storedGrant{}, errDamaged
	}
	g.generation = numberAt(code, 1)
	g.until, g.end, g.rotated = timeAt(code, grantUntil), timeAt(code, grantEnd), timeAt(code, grantRotated)
	g.auth, g.session = timeAt(code, grantAuth), uuid.UUID([]byte(code[grantSession:grantEpoch]))
	g.issuedEpoch = int64(binary.BigEndian.Uint32([]byte(code[grantEpoch:grantTail])))
	g.client, g.scope, g.audience, err = decodeGrantTail(code[grantTail:])
	return g, err
}

func decodeGrantTail(tail string) (client, scope string, audience []string, err error) {
	parts := strings.SplitN(tail, "\x00", 3)
	if len(parts) != 3 {
		return "", "", nil, errDamaged
	}
	audience, err = decodeAll(parts[2])
	return decodeClient(parts[0]), parts[1], audience, err
}

// encodeClient keeps the commonest client short.
func encodeClient(id string) string {
	if id == FirstParty {
		return ""
	}
	return id
}

func decodeClient(code string) string {
	if code == "" {
		return FirstParty
	}
	return code
}

// encodeAll is encodeList with nothing for nothing.
func encodeAll(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return encodeList(words)
}

func decodeAll(text string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	return decodeList(text)
}

// encodeSubject halves a UUID.
func encodeSubject(subject string) string {
	if id, err := uuid.Parse(subject); err == nil && id.String() == subject {
		return "U" + string(id[:])
	}
	return "T" + subject
}

func decodeSubject(code string) string {
	if len(code) == 17 && code[0] == 'U' {
		return uuid.UUID([]byte(code[1:])).String()
	}
	return strings.TrimPrefix(code, "T")
}

// encodeDevice writes the length of the address, the address and the User-Agent.
func encodeDevice(d Device) string {
	address := d.Address.Unmap().WithZone("").AsSlice()
	return string(append([]byte{byte(len(address))}, address...)) + squeezer.Replace(d.UserAgent)
}

func decodeDevice(code string) (Device, error) {
	if code == "" || len(code) < 1+int(code[0]) {
		return Device{}, errDamaged
	}
	n := 1 + int(code[0])
	address, ok := netip.AddrFromSlice([]byte(code[1:n]))
	if !ok && n > 1 {
		return Device{}, errDamaged
	}
	return NewDevice(unsqueezer.Replace(code[n:]), address), nil
}

// fragments are what most User-Agents are made of. A cleaned one has no control characters, so the n-th fragment is written as
// the n-th of those: 111 bytes of a browser become about ten. The list is part of what is stored: append to it, up to 31.
var fragments = [...]string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
	"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
	"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
	"Mozilla/5.0 (iPhone; CPU iPhone OS ",
	" like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/",
	" like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/",
	"Mozilla/5.0 (Linux; Android ",
	") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
	".0.0.0 Safari/537.36",
	".0.0.0 Mobile Safari/537.36",
	" Mobile/15E148 Safari/604.1",
	" Safari/605.1.15",
	" Gecko/20100101 Firefox/",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:",
	"; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/",
	"Mozilla/5.0 (",
	" AppleWebKit/537.36 (KHTML, like Gecko)",
	" AppleWebKit/605.1.15 (KHTML, like Gecko)",
	"SamsungBrowser/",
	" Whale/",
	"KAKAOTALK/",
	"NAVER(inapp; search; ",
}

var squeezer, unsqueezer = squeezers()

func squeezers() (squeeze, unsqueeze *strings.Replacer) {
	var there, back []string
	for i, f := range fragments {
		code := string(rune(i + 1))
		there, back = append(there, f, code), append(back, code, f)
	}
	return strings.NewReplacer(there...), strings.NewReplacer(back...)
}

// encode writes a quota as start.lua reads it: what it is about, how many, and what to do.
func (q quota) encode() []string {
	about, full := "all", "evict"
	switch {
	case q.byClass:
		about = "class" + string(q.class)
	case q.client != "":
		about = "client" + encodeClient(q.client)
	}
	if q.refuse {
		full = "refuse"
	}
	return []string{about, strconv.Itoa(q.most), full}
}

// live returns the live sessions in the order of List.
func (h hash) live(now time.Time) ([]Session, error) {
	roles, err := decodeAll(h["r"])
	if err != nil {
		return nil, err
	}
	epoch := int64(0)
	if h["e"] != "" {
		if epoch, err = strconv.ParseInt(h["e"], 10, 64); err != nil {
			return nil, err
		}
	}
	var live []Session
	for field, value := range h {
		if len(field) != 17 || field[0] != 's' || value[0] != 'L' {
			continue
		}
		one, err := decodeSession([]byte(field[1:]), value, h["d"+field[1:]])
		if err != nil {
			return nil, err
		}
		one.Subject, one.Roles, one.Epoch = decodeSubject(h["u"]), roles, epoch
		if one.ExpiresAt.After(now) && timeAt(value, sessionEnd).After(now) {
			live = append(live, one)
		}
	}
	sortByUse(live)
	return live, nil
}

// marks returns what somebody has to settle.
func (h hash) marks() ([]settlement, error) {
	var marks []settlement
	for field, value := range h {
		if len(field) != 17 || field[0] != 'p' {
			continue
		}
		if len(value) < 1+timeSize {
			return nil, errDamaged
		}
		m := settlement{id: uuid.UUID([]byte(field[1:])), evicted: value[0] == 'L'}
		m.theft.at = timeAt(value, 1)
		if m.evicted {
			m.theft.sessionID = m.id.String()
		} else if err := m.theft.decode(value[1+timeSize:]); err != nil {
			return nil, err
		}
		marks = append(marks, m)
	}
	return marks, nil
}

func (t *theft) decode(code string) (err error) {
	if len(code) < 16 {
		return errDamaged
	}
	t.sessionID = uuid.UUID([]byte(code[:16])).String()
	client, device, found := strings.Cut(code[16:], "\x00")
	if !found {
		return errDamaged
	}
	t.clientID = decodeClient(client)
	t.device, err = decodeDevice(device)
	return err
}
