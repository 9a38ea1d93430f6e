package compress

import (
	"strconv"
	"strings"
)

// Choose returns the coding on offer that a client likes best, of equal ones the first; "" for none (RFC 9110, section 12.5.3). A client
// that says nothing gets none. What cannot be read counts as not accepted.
func Choose(lines []string, offers ...string) string {
	best, bestWeight := "", 0.0
	for _, coding := range offers {
		if weight := weightOf(lines, coding); weight > bestWeight {
			best, bestWeight = coding, weight
		}
	}
	return best
}

// weightOf is how much a client likes a coding: what it says of it, else what it says of all others.
func weightOf(lines []string, coding string) float64 {
	others := 0.0
	for _, line := range lines {
		for one := range strings.SplitSeq(line, ",") {
			name, parameter, weighted := strings.Cut(one, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if name == "x-gzip" {
				name = "gzip"
			}
			if name != coding && name != "*" {
				continue
			}
			weight := 1.0
			if weighted {
				weight = parseWeight(parameter)
			}
			if name == coding {
				return weight
			}
			others = weight
		}
	}
	return others
}

// parseWeight reads q=0.5; anything else is 0.
func parseWeight(parameter string) float64 {
	parameter = strings.ToLower(strings.TrimSpace(parameter))
	text, ok := strings.CutPrefix(parameter, "q=")
	if !ok || len(text) > len("0.000") || strings.Trim(text, "0123456789.") != "" {
		return 0
	}
	weight, err := strconv.ParseFloat(text, 64)
	if err != nil || weight > 1 {
		return 0
	}
	return weight
}
