package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// tunnel passes bytes on in both directions after a change of protocol (RFC 9110, section 15.2.2), until both sides are done, one
// breaks, both are silent for too long, or the context ends.
func (x *exchange) tunnel(c *call) {
	h := c.w.Header()
	x.conn.in.addTo(h)
	delete(h, "Content-Length")
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{x.conn.in.upgrade}
	if c.o.OnAnswer != nil {
		c.o.OnAnswer(http.StatusSwitchingProtocols, h)
	}
	client, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, in which nobody can ask for this
	}
	defer func() { _ = client.Close() }()
	defer context.AfterFunc(x.stop, func() { _ = client.Close() })()
	_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(buffered)
	_, _ = buffered.WriteString("\r\n")
	_, _ = buffered.Write(x.conn.buffered())
	if buffered.Flush() != nil { // tells of the writes before
		return
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	if _, err := x.conn.Conn.Write(early); err != nil {
		return
	}
	t := &traffic{silence: c.pool.cfg.Timeouts.Tunnel}
	t.touch()
	up := make(chan struct{})
	go func() {
		defer close(up)
		t.copy(x.conn.Conn, client)
	}()
	t.copy(client, x.conn.Conn)
	<-up
}

// traffic notes when something passed last, in either direction.
type traffic struct {
	silence time.Duration
	last    atomic.Int64
}

func (t *traffic) touch() { t.last.Store(time.Now().UnixNano()) }

// copy passes on what comes from one side. At its end the other side is told that nothing more will come; when something breaks,
// both are closed.
func (t *traffic) copy(to, from net.Conn) {
	room := scratches.Get().(*[scratchSize]byte)
	defer scratches.Put(room)
	for {
		if t.silence > 0 {
			_ = from.SetReadDeadline(time.Unix(0, t.last.Load()).Add(t.silence))
		}
		n, err := from.Read(room[:])
		if n > 0 {
			t.touch()
			if _, err := to.Write(room[:n]); err != nil {
				break
			}
		}
		if err == io.EOF && closeWrite(to) {
			return
		}
		if isTimeout(err) && time.Since(time.Unix(0, t.last.Load())) < t.silence {
			continue // the other direction is busy
		}
		if err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
}

// closeWrite reports whether the other side could be told that nothing more will come.
func closeWrite(c net.Conn) bool {
	half, ok := c.(interface{ CloseWrite() error })
	return ok && half.CloseWrite() == nil
}

// offered reports whether protocol is among those of a request's Upgrade.
func offered(upgrade, protocol string) bool {
	for token := range tokens(upgrade) {
		if strings.EqualFold(token, protocol) {
			return true
		}
	}
	return false
}
