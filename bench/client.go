package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// requestWithin bounds one request, and extends itself at most so often: a deadline costs a timer.
const (
	requestWithin = 30 * time.Second
	extendEvery   = time.Second
)

// client is one keep-alive connection, for one goroutine. It does less than http.Transport, which passes every request through
// two goroutines of the connection, and less than http.ReadResponse: what the generator takes, the server cannot have.
type client struct {
	conn     net.Conn
	in       *bufio.Reader
	out      []byte
	body     []byte
	extended time.Time

	retryAfter time.Duration // what the last answer asks for
}

// dial connects to the public listener. The connection is closed when the server stops; make it when it is first needed, as
// the server does not wait long for the first request.
func (s *server) dial(ctx context.Context) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.public)
	if err != nil {
		return nil, err
	}
	s.conns = append(s.conns, conn)
	return &client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// refused is an answer with another status than the expected one.
type refused struct {
	what   string
	status int
	body   string
}

func (r *refused) Error() string { return fmt.Sprintf("%s: %d: %s", r.what, r.status, r.body) }

// do sends a request and decodes the answer, which must have the given status. Without a document the request has no body;
// answer may be nil.
func (c *client) do(method, path, access string, document any, status int, answer any) error {
	var body []byte
	if document != nil {
		var err error
		if body, err = json.Marshal(document); err != nil {
			return err
		}
	}
	what := method + " " + path
	got, err := c.exchange(what, access, body, status)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// exchange sends one request, such as "GET /v1/sessions", and returns the body of the answer, which is good until the next.
func (c *client) exchange(what, access string, body []byte, status int) ([]byte, error) {
	return c.send(message{what, "Bearer ", access, "application/json", body}, status)
}

// message is a request: method and path, who asks, and the body, nil for none.
type message struct {
	what                string
	scheme, credentials string // no credentials, no header
	media               string
	body                []byte
}

// send is exchange for any kind of request.
func (c *client) send(m message, status int) ([]byte, error) {
	c.out = append(append(c.out[:0], m.what...), " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sumun-bench\r\n"...)
	if m.credentials != "" {
		c.out = append(append(append(append(c.out, "Authorization: "...), m.scheme...), m.credentials...), "\r\n"...)
	}
	if m.body != nil {
		c.out = append(append(append(c.out, "Content-Type: "...), m.media...), "\r\nContent-Length: "...)
		c.out = append(strconv.AppendInt(c.out, int64(len(m.body)), 10), "\r\n"...)
	}
	c.out = append(append(c.out, "\r\n"...), m.body...)
	if now := time.Now(); now.Sub(c.extended) >= extendEvery {
		c.extended = now
		if err := c.conn.SetDeadline(now.Add(requestWithin)); err != nil {
			return nil, err
		}
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	got, err := c.receive()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.what, err)
	}
	if got != status {
		return nil, &refused{m.what, got, string(c.body)}
	}
	return c.body, nil
}

// receive reads an answer whose length the server has given, as net/http does for all short ones.
func (c *client) receive() (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("status line %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("status line %q", line)
	}
	length, seconds := -1, 0
	if status == http.StatusNoContent {
		length = 0
	}
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) <= len("\r\n") {
			break
		}
		if length, err = header(line, "Content-Length: ", length); err != nil {
			return 0, err
		}
		if seconds, err = header(line, "Retry-After: ", seconds); err != nil {
			return 0, err
		}
	}
	c.retryAfter = time.Duration(seconds) * time.Second
	if length < 0 {
		return 0, errors.New("the answer has no length")
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	_, err = io.ReadFull(c.in, c.body)
	return status, err
}

// header returns the number that a line gives a header of this name, and otherwise the one that is known so far.
func header(line []byte, name string, known int) (int, error) {
	value, found := bytes.CutPrefix(line, []byte(name))
	if !found {
		return known, nil
	}
	return strconv.Atoi(string(bytes.TrimSpace(value)))
}

// tokens are what the benchmarks keep of an answer.
type tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Device  string `json:"device_token"`
}

// account is somebody who signs in, from the same device every time.
type account struct {
	email  string
	device string
}

func (c *client) signIn(a *account) (t tokens, err error) {
	proof := map[string]string{"identifier": a.email, "password": password, "device_token": a.device}
	err = c.do(http.MethodPost, "/v1/sessions", "", proof, http.StatusCreated, &t)
	if a.device == "" {
		a.device = t.Device
	}
	return t, err
}

func (c *client) signOut(access string) error {
	return c.do(http.MethodDelete, "/v1/sessions/current", access, nil, http.StatusNoContent, nil)
}

// refresh exchanges a token for its successor, and spares itself the rest of the answer.
func (c *client) refresh(token string) (successor string, err error) {
	answer, err := c.exchange("POST /v1/sessions/refresh", "", []byte(`{"refresh_token":"`+token+`"}`), http.StatusOK)
	if err != nil {
		return "", err
	}
	return member(answer, "refresh_token")
}

// member returns a member of a JSON object that is a string without escapes, as tokens are.
func member(object []byte, name string) (string, error) {
	_, rest, _ := bytes.Cut(object, []byte(`"`+name+`":"`))
	value, _, found := bytes.Cut(rest, []byte(`"`))
	if !found {
		return "", fmt.Errorf("no %s in %s", name, object)
	}
	return string(value), nil
}
