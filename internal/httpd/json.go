package httpd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/sumunio/sumun/internal/fault"
)

// defaultMaxBody bounds request bodies, in bytes.
const defaultMaxBody = 1 << 20

// NoContent answers 204.
func NoContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// JSON answers with v as JSON. It fails before anything is written when v cannot be encoded. That the client has gone while it
// was being written is no failure.
func JSON(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
	return nil
}

// DecodeJSON reads the request body, one JSON value of at most 1 MiB or Chain's bound, whichever is less, into v. It refuses
// other media types (ErrUnsupportedMedia), what is not JSON and what follows the value (ErrMalformed), unknown fields and
// values of the wrong type (ErrInvalid). The faults never repeat a value.
func DecodeJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if !isJSON(r.Header.Get("Content-Type")) {
		return ErrUnsupportedMedia
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, defaultMaxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return decodeFault(err)
	}
	switch _, err := dec.Token(); {
	case err == io.EOF:
		return nil
	case isTooLarge(err):
		return decodeFault(err)
	default:
		return ErrMalformed.With("Something follows the JSON value.")
	}
}

func decodeFault(err error) error {
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case isTooLarge(err):
		return fault.ErrTooLarge
	case err == io.EOF:
		return ErrMalformed.With("A JSON body is required.")
	case errors.As(err, &syntax), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrMalformed.With("The body is not valid JSON.")
	case errors.As(err, &wrongType):
		return ErrInvalid.WithFields(fault.Field{Name: clipName(wrongType.Field), Code: "type", Message: "Has the wrong type."})
	}
	// encoding/json has no type for this error.
	if quoted, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		name, _ := strconv.Unquote(quoted)
		return ErrInvalid.WithFields(fault.Field{Name: clipName(name), Code: "unexpected", Message: "Is not known here."})
	}
	return ErrBodyUnread.Wrap(err)
}

func isTooLarge(err error) bool {
	var tooLarge *http.MaxBytesError
	return errors.As(err, &tooLarge)
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
