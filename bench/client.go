package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// requestWithin bounds one request.
const requestWithin = 30 * time.Second

// client is one keep-alive connection, for one goroutine. It does less than http.Transport, which passes every request through
// two goroutines of the connection: what the generator takes, the server cannot have.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
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

// do sends a request and decodes the answer, which must have the given status. Without a document the request has no body;
// answer may be nil.
func (c *client) do(method, path, access string, document any, status int, answer any) error {
	var body []byte
	c.out.Reset()
	c.out.WriteString(method + " " + path + " HTTP/1.1\r\nHost: " + c.conn.RemoteAddr().String() + "\r\nUser-Agent: sumun-bench\r\n")
	if access != "" {
		c.out.WriteString("Authorization: Bearer " + access + "\r\n")
	}
	if document != nil {
		var err error
		if body, err = json.Marshal(document); err != nil {
			return err
		}
		c.out.WriteString("Content-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	c.out.WriteString("\r\n")
	c.out.Write(body)
	if err := c.conn.SetDeadline(time.Now().Add(requestWithin)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return err
	}
	return c.receive(method+" "+path, status, answer)
}

func (c *client) receive(what string, status int, answer any) error {
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case r.StatusCode != status:
		return fmt.Errorf("%s: %s: %s", what, r.Status, body)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(body, answer)
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

func (c *client) refresh(token string) (successor string, err error) {
	var t tokens
	err = c.do(http.MethodPost, "/v1/sessions/refresh", "", map[string]string{"refresh_token": token}, http.StatusOK, &t)
	return t.Refresh, err
}
