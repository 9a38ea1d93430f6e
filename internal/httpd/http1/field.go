package http1

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sumunio/sumun/internal/httpd/syntax"
)

func appendStatus(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	b = append(b, ' ')
	if text := http.StatusText(status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(status), 10)
	}
	return append(b, "\r\n"...)
}

var spaces = strings.NewReplacer("\r", " ", "\n", " ")

// appendValues appends a field for each of its values. Nothing that a handler sets can end a line.
func appendValues(b []byte, name string, values []string) []byte {
	if !syntax.Token(name) {
		return b
	}
	for _, value := range values {
		if !syntax.Text(value) {
			value = spaces.Replace(value)
		}
		b = append(append(b, name...), ": "...)
		b = append(append(b, syntax.Trim(value)...), "\r\n"...)
	}
	return b
}

// appendSize appends the line in front of a chunk.
func appendSize(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 16), "\r\n"...)
}

// hasToken reports whether one of the values of a field names the token, which is in lower case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for word := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(syntax.Trim(word), token) {
				return true
			}
		}
	}
	return false
}

type second struct {
	unix int64
	text string
}

var lastSecond atomic.Pointer[second]

// date is the value of Date, which is made once a second.
func date() string {
	now := time.Now()
	s := lastSecond.Load()
	if s == nil || s.unix != now.Unix() {
		s = &second{now.Unix(), now.UTC().Format(http.TimeFormat)}
		lastSecond.Store(s)
	}
	return s.text
}
