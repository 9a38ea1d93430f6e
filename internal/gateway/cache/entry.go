package cache

import (
	"crypto/sha256"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// entry is one kept answer. It does not change.
type entry struct {
	status int
	header http.Header
	body   []byte
	d      directives
	// explicit says that the answer may be given to who comes with credentials.
	explicit bool
	vary     []string // names, canonical
	selected [32]byte // the values that the request had for them
	epoch    uint64   // of the resource when it was asked for

	age      time.Duration // when it arrived (RFC 9111, section 4.2.3)
	arrived  time.Time
	lifetime time.Duration
}

// maxVary bounds the names in Vary, and maxSelected the values that a request has for them, in bytes. What varies by more is not kept.
const (
	maxVary     = 8
	maxSelected = 4 << 10
)

// kept are the statuses of answers that may be kept where they say for how long. Errors are not: one request that provokes an error
// must not take a page from everybody.
var kept = []int{200, 203, 204, 300, 301, 302, 307, 308, 404, 410}

// newEntry returns the answer as it may be kept, or nil. r is the request as the client sent it, asked and now are when it was
// sent on and when the header of the answer came.
func (s *keeper) newEntry(r *request, status int, h http.Header, asked, now time.Time) *entry {
	d := parseControl(h["Cache-Control"])
	explicit := d.public || d.sMaxAge != absent || d.mustRevalidate
	private := s.cfg.PerPerson && r.person != ""
	switch {
	case !slices.Contains(kept, status), d.noStore, r.control.noStore, len(h["Set-Cookie"]) > 0, len(h["Content-Range"]) > 0,
		strings.HasPrefix(h.Get("Content-Type"), "text/event-stream"),
		!private && d.private, !private && r.authorized && !explicit:
		return nil
	}
	names, ok := varyNames(h["Vary"])
	if !ok || slices.ContainsFunc(names, s.deps.Internal) {
		return nil
	}
	selected, ok := selection(r.header, names)
	if !ok {
		return nil
	}
	e := &entry{status: status, d: d, explicit: explicit, vary: names, selected: selected, epoch: r.epoch, arrived: now}
	e.lifetime = freshness(d, h, now, private)
	e.age = initialAge(h, asked, now)
	if e.lifetime <= 0 && h.Get("Etag") == "" && h.Get("Last-Modified") == "" {
		return nil
	}
	return e
}

// freshness is how long an answer is fresh after it was made (RFC 9111, section 4.2.1). What it does not say is not guessed.
func freshness(d directives, h http.Header, now time.Time, private bool) time.Duration {
	switch {
	case d.noCache:
		return 0
	case d.sMaxAge != absent && !private:
		return d.sMaxAge
	case d.maxAge != absent:
		return d.maxAge
	}
	expires, err := http.ParseTime(h.Get("Expires"))
	if err != nil || len(h["Expires"]) != 1 {
		return 0
	}
	made, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		made = now
	}
	return expires.Sub(made)
}

// initialAge is the age of an answer when it came (RFC 9111, section 4.2.3).
func initialAge(h http.Header, asked, now time.Time) time.Duration {
	var apparent time.Duration
	if made, err := http.ParseTime(h.Get("Date")); err == nil {
		apparent = max(0, now.Sub(made))
		if apparent < 2*time.Second { // Date has whole seconds
			apparent = 0
		}
	}
	return max(apparent, parseSeconds(h.Get("Age"))+now.Sub(asked))
}

func (e *entry) ageAt(now time.Time) time.Duration { return e.age + max(0, now.Sub(e.arrived)) }

// left is how long the answer is still fresh; below 0, for how long it has been stale.
func (e *entry) left(now time.Time) time.Duration { return e.lifetime - e.ageAt(now) }

// mayBeStale reports whether the answer may be given although it is stale by so much, where it allows that for the length of window.
// s-maxage alone forbids it (RFC 9111, section 5.2.2.10), and gives way to a window that the same answer names.
func (e *entry) mayBeStale(by, window time.Duration) bool {
	return by <= window && !e.d.noCache && !e.d.mustRevalidate && !e.d.proxyRevalidate
}

// matches reports whether the answer is one to this request (RFC 9111, section 4.1), and may be given to who asks.
func (e *entry) matches(r *request) bool {
	if e.epoch != r.epoch || r.authorized && !e.explicit && r.person == "" {
		return false
	}
	selected, ok := selection(r.header, e.vary)
	return ok && selected == e.selected
}

// sameVariant reports whether one of two answers takes the place of the other.
func (e *entry) sameVariant(other *entry) bool {
	return e.selected == other.selected && slices.Equal(e.vary, other.vary) && e.explicit == other.explicit
}

// size is what an entry takes, about.
func (e *entry) size() int {
	n := 512 + len(e.body)
	for name, values := range e.header {
		n += len(name) + 48
		for _, v := range values {
			n += len(v) + 16
		}
	}
	return n
}

// varyNames are the names of Vary, canonical and in order. ok is false where no later request can match.
func varyNames(lines []string) (names []string, ok bool) {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.Trim(name, " \t"))
			switch {
			case name == "" || slices.Contains(names, name):
			case name == "*" || len(names) == maxVary:
				return nil, false
			default:
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, true
}

// selection stands for the values that a request has for the names.
func selection(h http.Header, names []string) (sum [32]byte, ok bool) {
	if len(names) == 0 {
		return sum, true
	}
	hash, size := sha256.New(), 0
	for _, name := range names {
		value := strings.Join(h[name], ", ")
		if name == "Accept-Encoding" {
			value = codings(value)
		}
		if size += len(value); size > maxSelected {
			return sum, false
		}
		io.WriteString(hash, name+":"+strconv.Itoa(len(h[name]))+":"+strconv.Itoa(len(value))+":"+value)
	}
	return [32]byte(hash.Sum(nil)), true
}

// codings are those of Accept-Encoding that are accepted, in order: how browsers write them makes no difference.
func codings(value string) string {
	var all []string
	for one := range strings.SplitSeq(strings.ToLower(value), ",") {
		name, quality, _ := strings.Cut(strings.ReplaceAll(one, " ", ""), ";")
		if weight, weighted := strings.CutPrefix(quality, "q="); weighted && strings.Trim(weight, "0.") == "" {
			name += ";q=0"
		}
		if name != "" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ",")
}

// freshened returns the entry with the header of a 304 (RFC 9111, section 3.2), or nil where that is about another answer.
func (s *keeper) freshened(e *entry, r *request, h http.Header, asked, now time.Time) *entry {
	if tag := h.Get("Etag"); tag != "" && strings.TrimPrefix(tag, "W/") != strings.TrimPrefix(e.header.Get("Etag"), "W/") {
		return nil
	}
	merged := http.Header{}
	for name, values := range e.header {
		merged[name] = values
	}
	for name, values := range h {
		switch name {
		case "Content-Length", "Content-Encoding", "Content-Type", "Content-Range", "Cache-Status", "Set-Cookie", "Etag":
		case "Vary": // what the whole answer depended on, it still does
			merged[name] = slices.Concat(e.header[name], values)
			if old, ok := varyNames(e.header[name]); ok {
				if now, ok := varyNames(values); ok && !slices.ContainsFunc(now, func(n string) bool { return !slices.Contains(old, n) }) {
					merged[name] = e.header[name]
				}
			}
		default:
			merged[name] = slices.Clip(slices.Clone(values))
		}
	}
	if _, told := h["Age"]; !told {
		delete(merged, "Age")
	}
	if next := s.newEntry(r, e.status, merged, asked, now); next != nil {
		next.header, next.body = merged, e.body
		return next
	}
	return nil
}
