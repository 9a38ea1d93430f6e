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

// client is one keep-alive connection, for one goroutine. It costs a third of http.Transport, which has goroutines of its
// own for every connection: what the generator takes, the server cannot have.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
}

func dial(ctx context.Context, address string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// post sends a JSON document and decodes the answer, which must have the given status.
func (c *client) post(path string, document any, status int, answer any) error {
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	c.out.Reset()
	c.out.WriteString("POST " + path + " HTTP/1.1\r\nHost: " + c.conn.RemoteAddr().String() +
		"\r\nUser-Agent: sumun-bench\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n")
	c.out.Write(body)
	if err := c.conn.SetDeadline(time.Now().Add(requestWithin)); err != nil {
		return err
	}
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	body, err = io.ReadAll(r.Body)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	if r.StatusCode != status {
		return fmt.Errorf("POST %s: %s: %s", path, r.Status, body)
	}
	return json.Unmarshal(body, answer)
}

// tokens are what the benchmarks keep of an answer.
type tokens struct {
	Refresh string `json:"refresh_token"`
	Device  string `json:"device_token"`
}

// account is somebody who signs in, from the same device every time.
type account struct {
	email  string
	device string
}

func (c *client) signIn(a *account) (refresh string, err error) {
	var t tokens
	err = c.post("/v1/sessions", map[string]string{"identifier": a.email, "password": password, "device_token": a.device},
		http.StatusCreated, &t)
	if a.device == "" {
		a.device = t.Device
	}
	return t.Refresh, err
}

func (c *client) refresh(token string) (successor string, err error) {
	var t tokens
	err = c.post("/v1/sessions/refresh", map[string]string{"refresh_token": token}, http.StatusOK, &t)
	return t.Refresh, err
}
