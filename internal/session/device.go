package session

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxUserAgent bounds what is kept of a User-Agent header, in bytes.
const maxUserAgent = 256

// NewDevice describes the device behind a request. The User-Agent is an outsider's text: it is cut and cleaned here, once.
func NewDevice(userAgent string, address netip.Addr) Device {
	userAgent = cleanUserAgent(userAgent)
	return Device{Label: DeviceLabel(userAgent), UserAgent: userAgent, Address: address}
}

// cleanUserAgent returns the header as valid UTF-8 without control characters, cut to maxUserAgent bytes.
func cleanUserAgent(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return -1
		}
		return r
	}, s[:min(len(s), 4*maxUserAgent)])
	s = strings.ToValidUTF8(s[:min(len(s), maxUserAgent)], "")
	return strings.TrimSpace(s)
}

// sign is a part of a User-Agent and what it means.
type sign struct{ text, name string }

// browsers are asked in order: nearly all of them also claim to be Chrome or Safari.
var browsers = [...]sign{
	{"KAKAOTALK", "KakaoTalk"}, {"NAVER(", "Naver"}, {"Whale/", "Whale"}, {"SamsungBrowser/", "Samsung Internet"},
	{"EdgiOS/", "Edge"}, {"EdgA/", "Edge"}, {"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Vivaldi/", "Vivaldi"}, {"YaBrowser/", "Yandex"},
	{"FxiOS/", "Firefox"}, {"Firefox/", "Firefox"}, {"CriOS/", "Chrome"},
	{"HeadlessChrome/", "Headless Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"},
}

// systems are asked in order: Android also says Linux, an iPhone also says Mac OS X.
var systems = [...]sign{
	{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"CrOS", "ChromeOS"},
	{"Mac OS X", "Mac"}, {"Macintosh", "Mac"}, {"Linux", "Linux"},
}

// DeviceLabel says in a few words what a User-Agent claims to be: "Chrome on Windows", "Safari on iPhone", "curl". It is a
// reminder for the owner of the session, not evidence.
func DeviceLabel(userAgent string) string {
	userAgent = cleanUserAgent(userAgent)
	if !strings.HasPrefix(userAgent, "Mozilla/") {
		return productName(userAgent)
	}
	browser, system := find(browsers[:], userAgent), find(systems[:], userAgent)
	switch {
	case browser == "" && system == "":
		return "Unknown browser"
	case browser == "":
		return "Browser on " + system
	case system == "":
		return browser
	default:
		return browser + " on " + system
	}
}

func find(signs []sign, userAgent string) string {
	for _, s := range signs {
		if strings.Contains(userAgent, s.text) {
			return s.name
		}
	}
	return ""
}

// productName returns the first product of a User-Agent (RFC 9110, section 10.1.5), of at most 32 characters.
func productName(userAgent string) string {
	name, _, _ := strings.Cut(userAgent, "/")
	name, _, _ = strings.Cut(name, " ")
	if runes := []rune(name); len(runes) > 32 {
		name = string(runes[:32])
	}
	if name == "" {
		return "Unknown device"
	}
	return name
}

// The classes of devices.
const (
	classOther byte = iota
	classDesktop
	classMobile
	classTablet
)

// deviceClass says what kind of device a User-Agent claims to be.
func deviceClass(userAgent string) byte {
	if !strings.HasPrefix(userAgent, "Mozilla/") {
		return classOther
	}
	switch find(systems[:], userAgent) {
	case "iPhone":
		return classMobile
	case "iPad":
		return classTablet
	case "Android":
		if strings.Contains(userAgent, "Mobile") {
			return classMobile
		}
		return classTablet
	case "":
		return classOther
	default:
		return classDesktop
	}
}
