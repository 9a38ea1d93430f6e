package web_test

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var colour = regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`)

// luminance is the relative luminance of a colour (WCAG 2.2).
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	part := func(s string) float64 {
		n, err := strconv.ParseUint(s, 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		v := float64(n) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*part(hex[:2]) + 0.7152*part(hex[2:4]) + 0.0722*part(hex[4:])
}

// Somebody with weak eyes, or in the sun, must be able to read every text (4.5, WCAG 2.2 SC 1.4.3) and see every edge of a
// field (3, SC 1.4.11), in light and in dark.
func TestContrast(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("assets/sumun.css")
	if err != nil {
		t.Fatal(err)
	}
	light, rest, _ := strings.Cut(string(raw), "@media (prefers-color-scheme: dark)")
	dark, _, _ := strings.Cut(rest, "*, *::before")
	for scheme, block := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]string{}
		for _, m := range colour.FindAllStringSubmatch(block, -1) {
			colours[m[1]] = m[2]
		}
		check := func(front, back string, least float64) {
			a, b := luminance(t, colours[front]), luminance(t, colours[back])
			if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < least {
				t.Errorf("%s: %s on %s has a contrast of %.2f, less than %.1f", scheme, front, back, ratio, least)
			}
		}
		for _, back := range []string{"paper", "surface"} {
			for _, front := range []string{"ink", "muted", "accent", "accent-deep", "danger"} {
				check(front, back, 4.5)
			}
			check("edge", back, 3)
		}
		for _, front := range []string{"ink", "accent-deep", "muted"} {
			check(front, "soft", 4.5)
		}
		check("ink", "danger-soft", 4.5)
		check("danger", "danger-soft", 4.5)
		check("on-accent", "accent", 4.5)
		check("on-accent", "accent-deep", 4.5)
		check("on-danger", "danger", 4.5)
	}
}
