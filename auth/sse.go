package auth

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
)

const (
	maxLineSize  = 256 << 10
	maxEventSize = 1 << 20
)

// event is one server-sent event (WHATWG HTML section 9.2).
type event struct {
	name string
	id   string // the last one seen, of this event or an earlier one
	data []byte
}

// eventReader reads a stream of server-sent events, as far as the revocation feed uses them. What it keeps is bounded by the
// size of one event.
type eventReader struct {
	lines *bufio.Scanner
	first bool
	id    string
}

func newEventReader(r io.Reader) *eventReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLineSize)
	lines.Split(splitLine)
	return &eventReader{lines: lines, first: true}
}

// next returns the next event that carries data, or io.EOF at the end. An event that the end cuts short is dropped.
func (r *eventReader) next() (event, error) {
	var e event
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if r.first {
			line, r.first = bytes.TrimPrefix(line, []byte("\ufeff")), false
		}
		if len(line) == 0 {
			if e.data == nil {
				e = event{}
				continue
			}
			e.id = r.id
			return e, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) { // an empty one is a comment, unknown ones are for others
		case "event":
			e.name = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				r.id = string(value)
			}
		case "data":
			if e.data != nil {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
			if e.data == nil {
				e.data = []byte{}
			}
			if len(e.data) > maxEventSize {
				return event{}, fmt.Errorf("an event of more than %d bytes", maxEventSize)
			}
		}
	}
	if err := r.lines.Err(); err != nil {
		return event{}, err
	}
	return event{}, io.EOF
}

// splitLine splits at CR LF, LF or CR. After a CR it waits for the next byte, which may be its LF.
func splitLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0 && atEOF && len(data) > 0:
		return len(data), data, nil
	case i < 0, data[i] == '\r' && i+1 == len(data) && !atEOF:
		return 0, nil, nil
	case bytes.HasPrefix(data[i:], []byte("\r\n")):
		return i + 2, data[:i], nil
	}
	return i + 1, data[:i], nil
}
