package gateway

import (
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/sumunio/sumun/internal/gateway/stage"
	"github.com/sumunio/sumun/internal/ratelimit"
)

// defaultPer is the time that gateway.rate and gateway.sign_in_rate count in.
const defaultPer = time.Minute

// counter is a limit of a route, ready to count.
type counter struct {
	by     LimitBy
	policy ratelimit.Policy
	// member names the policy in RateLimit, described in RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10, sections 3, 4).
	member    string
	described []string
}

// limit counts requests. Routes that say nothing about limits share one count.
func (b *builder) limit(rc Route) stage.Stage {
	if b.deps.Limiter == nil || rc.Unlimited {
		return nil
	}
	var counters []counter
	for i, l := range rc.Limits {
		name := rc.Name
		if i > 0 {
			name += "-" + strconv.Itoa(i+1)
		}
		counters = append(counters, newCounter(name, l))
	}
	if len(counters) == 0 {
		counters = []counter{newCounter("requests", Limit{By: ByCaller, Rate: b.cfg.Rate, Per: defaultPer})}
	}
	return func(next stage.Handler) stage.Handler {
		return func(w http.ResponseWriter, r *http.Request, c *stage.Call) error {
			for i := range counters {
				if err := b.count(w, r, c, &counters[i]); err != nil {
					return err
				}
			}
			return next(w, r, c)
		}
	}
}

func newCounter(name string, l Limit) counter {
	burst := l.Burst
	if burst == 0 {
		burst = l.Rate
	}
	member := `"` + name + `"`
	return counter{
		by:        l.By,
		policy:    ratelimit.Policy{Name: "gateway." + name, Rate: l.Rate, Period: l.Per, Burst: burst},
		member:    member,
		described: []string{member + ";q=" + strconv.Itoa(l.Rate) + ";w=" + strconv.Itoa(int(l.Per/time.Second))},
	}
}

// count takes one request from what a caller may do, and says in the answer's header what is left.
func (b *builder) count(w http.ResponseWriter, r *http.Request, c *stage.Call, k *counter) error {
	var room [96]byte
	key := k.by.key(room[:0], c)
	if len(key) == 0 {
		return nil
	}
	v, err := b.deps.Limiter.Take(r.Context(), k.policy, string(key))
	if err != nil {
		return err
	}
	h := w.Header()
	state := append(room[:0], k.member...)
	state = append(state, ";r="...)
	state = strconv.AppendInt(state, int64(v.Remaining), 10)
	state = append(state, ";t="...)
	state = strconv.AppendInt(state, int64((v.ResetAfter+time.Second-1)/time.Second), 10)
	if before := h["Ratelimit-Policy"]; before == nil {
		h["Ratelimit-Policy"] = k.described // shared by all answers, and never written to
	} else {
		h["Ratelimit-Policy"] = append(before, k.described...)
	}
	h["Ratelimit"] = append(h["Ratelimit"], string(state))
	if !v.Allowed {
		return ErrRateLimited.After(v.RetryAfter)
	}
	return nil
}

// key appends who is counted; nothing where that is not known. What kind of key it is comes first, so that nobody shares the
// count of somebody else whose id looks the same.
func (by LimitBy) key(b []byte, c *stage.Call) []byte {
	switch {
	case by == ByAddress || by == ByCaller && c.Claims == nil && c.APIKey == "":
		return appendAddress(append(b, "a "...), c.Client)
	case by == ByCaller && c.APIKey != "":
		return append(append(b, "k "...), c.APIKey...)
	case c.Claims == nil:
		return b
	case by == ByClient:
		return append(append(b, "c "...), c.Claims.ClientID...)
	case by == ByPerson && c.Claims.SessionID == "" && c.Claims.Subject == c.Claims.ClientID:
		return b // a service, by its own right
	default:
		return append(append(b, "p "...), c.Claims.Subject...)
	}
}

// appendAddress appends what stands for a network address: of IPv6 the /64, which is what one customer has.
func appendAddress(b []byte, addr netip.Addr) []byte {
	if addr.Is6() {
		prefix, _ := addr.Prefix(64) // 64 is a length that IPv6 has
		addr = prefix.Addr()
	}
	return addr.AppendTo(b)
}
