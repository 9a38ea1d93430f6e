package httpd

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
)

// defaultMaxBody bounds request bodies, in bytes.
const defaultMaxBody = 1 << 20

// errTwice says that an object has two members of one name. What such a document means is anybody's guess (RFC 8259,
// section 4): a proxy that looks into it may see the other one.
var errTwice = errors.New("an object has two members of one name")

// unmarshal is json.Unmarshal for huma, which reads each body twice: into an any, which is validated, and then into the
// operation's input.
func unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	if parsed, ok := v.(*any); ok && written(data) != members(*parsed) {
		return errTwice
	}
	return nil
}

// written counts the members of all objects in a valid JSON text: each has one colon, and no others are outside of strings.
func written(text []byte) (n int) {
	inString := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case !inString && c == ':':
			n++
		}
	}
	return n
}

// members counts those that decoding has kept.
func members(v any) (n int) {
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, member := range v {
			n += members(member)
		}
	case []any:
		for _, element := range v {
			n += members(element)
		}
	}
	return n
}

// isJSON reports whether a Content-Type is application/json or a JSON-based one such as application/merge-patch+json.
func isJSON(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")
}

// acceptsJSON reports whether the client takes JSON for an answer (RFC 9110, section 12.5.1). No Accept header at all takes
// anything.
func acceptsJSON(header http.Header) bool {
	anything := true
	for _, value := range header.Values("Accept") {
		for element := range strings.SplitSeq(value, ",") {
			media, params, _ := strings.Cut(element, ";")
			media = strings.ToLower(strings.Trim(media, " \t"))
			switch media {
			case "":
				continue
			case "*/*", "application/*", "application/json", fault.ContentType:
				if !refused(params) {
					return true
				}
			}
			anything = false
		}
	}
	return anything
}

// refused reports whether the parameters of a media range contain a weight of zero.
func refused(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		if strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(value, 64)
			return err == nil && q == 0
		}
	}
	return false
}

// clipName shortens a field name that the client chose.
func clipName(name string) string {
	return strings.ToValidUTF8(name[:min(len(name), 100)], "")
}
