package upstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

const (
	readSize = 4 << 10 // of a connection's buffer, which grows to the largest head that is allowed and shrinks again
	keepHead = 16 << 10
)

// conn is a connection to an endpoint. One exchange uses it at a time; Close may be called by anyone.
type conn struct {
	net.Conn
	socket *socket // below TLS too; nil where there is none
	plain  bool    // the socket is what is spoken through
	reused bool
	idle   time.Time // since when it has not been used
	until  time.Time // when the endpoint may close it; zero where it did not say

	buf        []byte // buf[start:end] has been read and not been used
	start, end int
	out        []byte // the head of a request is written here
	in         head   // the head of an answer is parsed into here
	exchange   exchange

	readBy, writeBy time.Time // deadlines of the socket
	wait            limit     // of every read and write of this exchange
	interrupt       func()    // ends whatever is going on, from another goroutine
	onWait          func()    // called before a read that may block; nil when nobody wants to know
}

// limit says how long a connection may be silent: patience from now on, and until deadline at the latest. Zero is no limit.
type limit struct {
	patience time.Duration
	deadline time.Time
}

// newConn returns a connection that speaks through spoken, which is socket or TLS on top of it.
func newConn(socket, spoken net.Conn) *conn {
	c := &conn{Conn: spoken, plain: socket == spoken, buf: make([]byte, readSize)}
	c.interrupt = func() { _ = c.Close() }
	c.socket = newSocket(socket, c)
	return c
}

// by returns when the limit is reached, unless current is close enough to that. Moving a deadline takes the runtime longer than
// comparing two, so patience is stretched by up to an eighth; a deadline is exact.
func (l limit) by(current time.Time) (by time.Time, change bool) {
	if l.patience <= 0 {
		return l.deadline, !current.Equal(l.deadline)
	}
	now := time.Now()
	earliest, latest := now.Add(l.patience), now.Add(l.patience+l.patience/8)
	if !l.deadline.IsZero() && l.deadline.Before(latest) {
		return l.deadline, !current.Equal(l.deadline)
	}
	return latest, current.Before(earliest) || current.After(latest)
}

// unknownDeadline is one that no limit asks for, so that the next read sets its own.
var unknownDeadline = time.Unix(1, 0)

// Read implements io.Reader within the limit.
func (c *conn) Read(p []byte) (int, error) {
	if c.onWait != nil {
		c.onWait()
	}
	if by, change := c.wait.by(c.readBy); change {
		c.readBy = by
		_ = c.SetReadDeadline(by) // fails on a closed connection only, as Read then does
	}
	return c.Conn.Read(p)
}

// write sends p within l, which is given because a body is sent by a goroutine of its own.
func (c *conn) write(p []byte, l limit) (int, error) {
	if by, change := l.by(c.writeBy); change {
		c.writeBy = by
		_ = c.SetWriteDeadline(by)
	}
	return c.Conn.Write(p)
}

// buffered is what has been read and not been used. It is valid until the next read.
func (c *conn) buffered() []byte { return c.buf[c.start:c.end] }

// fill reads once, behind what is there.
func (c *conn) fill() error {
	switch {
	case c.start == c.end:
		c.start, c.end = 0, 0
	case c.end == len(c.buf) && c.start > 0:
		c.end = copy(c.buf, c.buf[c.start:c.end])
		c.start = 0
	}
	if c.end == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	for range 100 {
		n, err := c.Read(c.buf[c.end:])
		c.end += n
		if n > 0 || err != nil {
			return discardIf(n > 0, err)
		}
	}
	return io.ErrNoProgress
}

// discardIf drops an error that came with bytes: the next read brings it again.
func discardIf(drop bool, err error) error {
	if drop {
		return nil
	}
	return err
}

// readBlock returns lines up to and with the first empty one, at most max bytes. Lines end in CRLF: a bare LF, which some take
// for the end of a line and others do not, is refused as soon as it is there (RFC 9112, section 2.2). at is the text of the
// block, in a string of its own.
func (c *conn) readBlock(max int) (block string, err error) {
	for line, scanned := 0, 0; ; { // both relative to start
		text := c.buffered()
		i := bytes.IndexByte(text[scanned:], '\n')
		if i < 0 {
			scanned = len(text)
			if scanned > max {
				return "", malformed("head of more than the allowed size")
			}
			if err := c.fill(); err != nil {
				return "", err
			}
			continue
		}
		end := scanned + i // of the line, its LF
		switch {
		case end >= max:
			return "", malformed("head of more than the allowed size")
		case end == line || text[end-1] != '\r':
			return "", malformed("line that does not end in CRLF")
		case end-1 == line:
			block = string(text[:end+1])
			c.start += end + 1
			return block, nil
		}
		line, scanned = end+1, end+1
	}
}

// readLine returns a line without its CRLF, at most max bytes, valid until the next read.
func (c *conn) readLine(max int) ([]byte, error) {
	for {
		text := c.buffered()
		i := bytes.IndexByte(text, '\n')
		switch {
		case i > max || i < 0 && len(text) > max:
			return nil, malformed("line of more than the allowed size")
		case i < 0:
			if err := c.fill(); err != nil {
				return nil, noEOF(err)
			}
			continue
		case i == 0 || text[i-1] != '\r':
			return nil, malformed("line that does not end in CRLF")
		}
		c.start += i + 1
		return text[:i-1], nil
	}
}

// rest makes the connection ready for another exchange. It reports false where something is left that nobody asked for, which
// the next exchange would take for its answer.
func (c *conn) rest() bool {
	if c.start != c.end || !emptied(c.Conn) {
		return false
	}
	c.start, c.end, c.wait, c.onWait, c.reused = 0, 0, limit{}, nil, true
	c.idle, c.until = time.Now(), time.Time{}
	if c.in.keep > 0 {
		c.until = c.idle.Add(c.in.keep - min(time.Second, c.in.keep/2)) // a request on its way takes time too
	}
	if cap(c.buf) > keepHead {
		c.buf = make([]byte, readSize)
	}
	if cap(c.out) > keepHead {
		c.out = nil
	}
	c.in.forget()
	return true
}

// usable reports whether the connection is likely to be open still. A request that may not be sent twice is lost on one that the
// endpoint closes in this very moment.
func (c *conn) usable(idle time.Duration) bool {
	now := time.Now()
	return now.Sub(c.idle) < idle && (c.until.IsZero() || now.Before(c.until))
}

// errNotFresh means that something had arrived on an idle connection before it was used.
var errNotFresh = errors.New("connection on which something arrived that nobody asked for")

// ask writes what is in out. Where that is the whole request and the socket can be used directly, it also waits for the beginning of
// the answer. It returns how much was written.
func (c *conn) ask(whole bool, writing limit) (sent int, err error) {
	if c.socket != nil && c.plain && whole {
		if by, change := c.wait.by(c.readBy); change {
			c.readBy = by
			_ = c.SetReadDeadline(by)
		}
		if sent, err = c.socket.ask(c.out); err != nil || sent == len(c.out) {
			return sent, err
		}
	} else if c.socket != nil && c.reused && !c.socket.fresh() {
		return 0, errNotFresh
	}
	n, err := c.write(c.out[sent:], writing)
	return sent + n, err
}

// noEOF says that a stream ended where it must not.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
