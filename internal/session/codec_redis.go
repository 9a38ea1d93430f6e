package session

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sumunio/sumun/internal/sqldb"
)

// The values in a person's hash, as lua/common.lua describes them. Scripts write what has times, Go the rest.

var errDamaged = errors.New("a session in Redis is damaged")

// hash is everything about a person.
type hash map[string]string

const timeSize = 7

// How much is kept of hashes, bytes.
const (
	cookieHash = 16
	tokenHash  = 12
)

func appendTime(b []byte, t time.Time) []byte {
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(sqldb.Micros(t)))
	return append(b, wide[1:]...)
}

func timeAt(s string, at int) time.Time {
	var wide [8]byte
	copy(wide[1:], s[at:at+timeSize])
	return sqldb.Time(int64(binary.BigEndian.Uint64(wide[:])))
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

func encodeSessionTail(s Start) string {
	return strings.Join([]string{s.ACR, encodeClient(s.ClientID), encodeWords(s.AMR)}, "\x00")
}

// decodeSession reads a live session and its device.
func decodeSession(id []byte, s, device string) (one Session, err error) {
	if len(s) < sessionTail || s[0] != 'L' {
		return Session{}, errDamaged
	}
	one.ID = uuid.UUID(id).String()
	one.LastUsedAt, one.ExpiresAt, one.AuthTime = timeAt(s, sessionUsed), timeAt(s, sessionUntil), timeAt(s, sessionAuth)
	one.CreatedAt = timeAt(s, sessionCreated)
	if one.ACR, one.AMR, err = decodeSessionTail(s[sessionTail:]); err != nil {
		return Session{}, err
	}
	one.Device, err = decodeDevice(device)
	return one, err
}

func decodeSessionTail(tail string) (acr string, amr []string, err error) {
	parts := strings.SplitN(tail, "\x00", 3)
	if len(parts) != 3 {
		return "", nil, errDamaged
	}
	amr, err = decodeWords(parts[2])
	return parts[0], amr, err
}

func encodeGrantTail(s Start) string {
	return strings.Join([]string{encodeClient(s.ClientID), s.Scope, encodeWords(s.Audience)}, "\x00")
}

func decodeGrantTail(tail string) (client, scope string, audience []string, err error) {
	parts := strings.SplitN(tail, "\x00", 3)
	if len(parts) != 3 {
		return "", "", nil, errDamaged
	}
	audience, err = decodeWords(parts[2])
	return decodeClient(parts[0]), parts[1], audience, err
}

// encodeThumbprint writes a thumbprint as the hash that it is; "" is "".
func encodeThumbprint(text string) string {
	hash, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return text // which no hash can equal; a start never has one
	}
	return string(hash)
}

func decodeThumbprint(hash string) string { return base64.RawURLEncoding.EncodeToString([]byte(hash)) }

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

// encodeWords is a shorter encodeList: nothing for nothing, and words that are as simple as most are joined by a character that
// none of them has.
func encodeWords(words []string) string {
	for i, word := range words {
		if word == "" || strings.ContainsAny(word, "\x00\x01") || i == 0 && word[0] == '[' {
			return encodeList(words)
		}
	}
	return strings.Join(words, "\x01")
}

func decodeWords(text string) ([]string, error) {
	switch {
	case text == "":
		return nil, nil
	case text[0] == '[':
		return decodeList(text)
	default:
		return strings.Split(text, "\x01"), nil
	}
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
	" Mobile Safari/537.36;KAKAOTALK ",
	" Mobile Safari/537.36",
	" KAKAOTALK ",
	"; SM-",
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
	roles, err := decodeWords(h["r"])
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
		one, err := decodeSession([]byte(field[1:]), value, h["d"+field[9:]])
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
