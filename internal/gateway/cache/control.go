package cache

import (
	"math"
	"strings"
	"time"
)

// directives are those of Cache-Control that mean something here (RFC 9111, section 5.2, and RFC 5861). Times are -1 where they are not
// given.
type directives struct {
	noStore, noCache, private, public, mustRevalidate, proxyRevalidate, onlyIfCached bool

	maxAge, sMaxAge, minFresh, maxStale, staleWhileRevalidate, staleIfError time.Duration
}

const absent time.Duration = -1

// parseControl reads all lines of Cache-Control. Where it cannot be understood it errs on the side of not reusing: a time that is no
// number, or is given twice, is 0, and a directive with a list of fields holds for the whole answer.
func parseControl(lines []string) directives {
	d := directives{
		maxAge: absent, sMaxAge: absent, minFresh: absent, maxStale: absent, staleWhileRevalidate: absent, staleIfError: absent,
	}
	for _, line := range lines {
		for line != "" {
			var name, value string
			name, value, line = nextDirective(line)
			d.set(strings.ToLower(name), value)
		}
	}
	return d
}

// nextDirective cuts the first directive off. A quoted value may contain commas.
func nextDirective(line string) (name, value, rest string) {
	end, quoted := len(line), false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			end = i
		}
		if end == i {
			break
		}
	}
	if end < len(line) {
		rest = line[end+1:]
	}
	name, value, _ = strings.Cut(line[:end], "=")
	return strings.Trim(name, " \t"), strings.Trim(value, " \t\""), rest
}

func (d *directives) set(name, value string) {
	switch name {
	case "no-store":
		d.noStore = true
	case "no-cache":
		d.noCache = true
	case "private":
		d.private = true
	case "public":
		d.public = true
	case "must-revalidate":
		d.mustRevalidate = true
	case "proxy-revalidate":
		d.proxyRevalidate = true
	case "only-if-cached":
		d.onlyIfCached = true
	case "max-age":
		setSeconds(&d.maxAge, value)
	case "s-maxage":
		setSeconds(&d.sMaxAge, value)
	case "min-fresh":
		setSeconds(&d.minFresh, value)
	case "max-stale":
		if value == "" {
			d.maxStale = math.MaxInt64
			return
		}
		setSeconds(&d.maxStale, value)
	case "stale-while-revalidate":
		setSeconds(&d.staleWhileRevalidate, value)
	case "stale-if-error":
		setSeconds(&d.staleIfError, value)
	}
}

// maxSeconds is what a larger number counts as (RFC 9111, section 1.2.2).
const maxSeconds = math.MaxInt32

func setSeconds(to *time.Duration, value string) {
	if *to != absent {
		*to = 0
		return
	}
	*to = parseSeconds(value)
}

// parseSeconds reads a number of seconds; what is none is 0.
func parseSeconds(text string) time.Duration {
	n := int64(0)
	for i := range len(text) {
		c := text[i]
		if c < '0' || c > '9' {
			return 0
		}
		n = min(n*10+int64(c-'0'), maxSeconds)
	}
	return time.Duration(n) * time.Second
}
