package httpd

import "net/http"

// strictCSP is for answers that are not pages (CSP level 3): nothing may load, whatever a browser takes them for. Pages bring
// policies of their own.
const strictCSP = "default-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// alwaysSent is what every answer carries. The names are in canonical form.
var alwaysSent = [...]struct{ name, value string }{
	{"Content-Security-Policy", strictCSP},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"Permissions-Policy", "accelerometer=(), camera=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), payment=(), usb=()"},
}

// securityHeaders sets what every answer carries, before a handler may widen it. The values share one allocation; who adds to one of them
// gets a copy.
func securityHeaders(h http.Header, path string, https bool) {
	values := make([]string, len(alwaysSent))
	for i, one := range alwaysSent {
		values[i] = one.value
		h[one.name] = values[i : i+1 : i+1]
	}
	if https {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if isAPI(path) {
		h.Set("Cache-Control", "no-store")
	}
}
