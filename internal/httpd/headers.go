package httpd

import "net/http"

// Content security policies (CSP level 3). Neither allows inline script or style, framing, or forms to other origins.
const (
	// strictCSP is for answers that are not pages: nothing may load, whatever a browser takes them for.
	strictCSP = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
	// pageCSP is for our pages: their own scripts, styles, images, fonts and requests.
	pageCSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

// securityHeaders sets what every answer carries, before a handler may widen it.
func securityHeaders(h http.Header, path string, https bool) {
	h.Set("Content-Security-Policy", strictCSP)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), "+
		"microphone=(), payment=(), usb=()")
	if https {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if isAPI(path) {
		h.Set("Cache-Control", "no-store")
	}
}

// PageHeaders widens the content security policy to what a page of ours may load from its own origin.
func PageHeaders(h http.Header) {
	h.Set("Content-Security-Policy", pageCSP)
}
