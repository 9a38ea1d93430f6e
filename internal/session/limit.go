package session

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// WhenFull says what becomes of a sign-in beyond a limit.
type WhenFull string

// The policies.
const (
	EvictOldest WhenFull = "evict_oldest" // the least recently used session ends, and its device is told why
	Refuse      WhenFull = "refuse"       // the sign-in is refused, until a session ends
)

// LimitRule is a limit for those with a role, or for the sessions of a client. It is written role:NAME=N or client:NAME=N,
// where N may be "unlimited", and may be followed by :evict_oldest or :refuse.
type LimitRule struct {
	Role, Client string // one of them
	Limit        int    // 0: unlimited
	WhenFull     WhenFull
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *LimitRule) UnmarshalText(text []byte) error {
	const remedy = "write role:NAME=N or client:NAME=N, with unlimited for N or :refuse after it where that is meant"
	left, right, found := strings.Cut(string(text), "=")
	kind, name, _ := strings.Cut(left, ":")
	number, full, _ := strings.Cut(right, ":")
	*r = LimitRule{WhenFull: WhenFull(full)}
	switch kind {
	case "role":
		r.Role = name
	case "client":
		r.Client = name
	}
	if !found || r.Role+r.Client == "" || !slices.Contains([]WhenFull{"", EvictOldest, Refuse}, r.WhenFull) {
		return errors.New(remedy)
	}
	if number == "unlimited" {
		return nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > maxLimit {
		return errors.New(remedy)
	}
	r.Limit = n
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (r LimitRule) MarshalText() ([]byte, error) {
	text := "role:" + r.Role
	if r.Client != "" {
		text = "client:" + r.Client
	}
	number := "unlimited"
	if r.Limit > 0 {
		number = strconv.Itoa(r.Limit)
	}
	text += "=" + number
	if r.WhenFull != "" {
		text += ":" + string(r.WhenFull)
	}
	return []byte(text), nil
}

const maxLimit = 10_000

func (c Config) validateLimits() error {
	var errs []error
	if c.Limit < 1 || c.Limit > maxLimit {
		errs = append(errs, fmt.Errorf("limit: %d is not between 1 and %d; use a value such as 100", c.Limit, maxLimit))
	}
	if c.WhenFull != EvictOldest && c.WhenFull != Refuse {
		errs = append(errs, fmt.Errorf("when_full: %q is unknown; use %q or %q", c.WhenFull, EvictOldest, Refuse))
	}
	return errors.Join(errs...)
}

// quota is a limit that holds for one sign-in: of all the person's live sessions, of those of a client, or of those on a class
// of devices, there may be so many with the new one.
type quota struct {
	client string // "" for any
	class  byte   // with byClass
	most   int
	refuse bool

	byClass bool
}

// quotas are the limits for a sign-in. The first rule for a role that the person has takes the place of Config.Limit.
func (c Config) quotas(start Start, roles []string) []quota {
	var all []quota
	add := func(q quota, full WhenFull) {
		if full == "" {
			full = c.WhenFull
		}
		q.refuse = full == Refuse
		if q.most > 0 {
			all = append(all, q)
		}
	}
	everything := LimitRule{Limit: c.Limit}
	for _, r := range c.Limits {
		if r.Role != "" && slices.Contains(roles, r.Role) {
			everything = r
			break
		}
	}
	add(quota{most: everything.Limit}, everything.WhenFull)
	for _, r := range c.Limits {
		if r.Client != "" && r.Client == start.ClientID {
			add(quota{client: r.Client, most: r.Limit}, r.WhenFull)
		}
	}
	if c.OnePerDevice {
		add(quota{byClass: true, class: deviceClass(start.Device.UserAgent), most: 1}, "")
	}
	return all
}

// counts reports whether a live session is one of those that the quota is about.
func (q quota) counts(one Session) bool {
	return (q.client == "" || slices.Contains(one.clients, q.client)) &&
		(!q.byClass || deviceClass(one.Device.UserAgent) == q.class)
}

// excess decides what must end among live sessions, the least recently used first, so that one more fits. full says that it is
// to be refused instead; then nothing ends.
func excess(quotas []quota, live []Session) (ids []string, full bool) {
	for _, q := range quotas {
		counted := slices.DeleteFunc(slices.Clone(live), func(one Session) bool { return !q.counts(one) })
		over := len(counted) - q.most + 1
		if over <= 0 {
			continue
		}
		if q.refuse {
			return nil, true
		}
		for _, one := range counted[:over] {
			if !slices.Contains(ids, one.ID) {
				ids = append(ids, one.ID)
			}
		}
	}
	return ids, false
}
