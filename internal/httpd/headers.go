package httpd

import "net/http"

// strictCSP is for answers that are not pages (CSP level 3): nothing may load, whatever a browser takes them for. Pages bring
// policies of their own.
const strictCSP = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

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
