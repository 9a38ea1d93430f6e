package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	maxInformational = 16                    // answers before the answer
	continueWait     = time.Second           // for an endpoint that does not say whether it wants the body (RFC 9110, section 10.1.1)
	lastWords        = time.Second           // for the answer of an endpoint that no longer reads
	lastWrite        = 20 * time.Millisecond // for the end of a body that has been read and answered
)

// exchange is a request and its answer on a connection of HTTP/1.1.
type exchange struct {
	call    *call
	e       *endpoint
	conn    *conn
	body    body
	sending *sending
	release func() bool // stops watching the context; false: it has ended, and the connection is closed
	stop    context.Context
	unsent  bool // nothing of the request has been written
}

// tryHTTP1 asks e. An idle connection may have been closed by the endpoint in the very moment: where nothing came back on one,
// the request is sent again on a new connection, if it may be repeated or has not been sent.
func (c *call) tryHTTP1(ctx context.Context, e *endpoint) (answer, *failure) {
	for anew := false; ; anew = true {
		conn, fail := e.connect(ctx, c.pool, anew)
		if fail != nil {
			return nil, fail
		}
		x := &conn.exchange
		*x = exchange{call: c, e: e, conn: conn, unsent: true, stop: ctx}
		err := x.roundTrip(ctx)
		if err == nil {
			return x, nil
		}
		stale := conn.reused && conn.start == conn.end && !isTimeout(err) && !errors.As(err, new(malformed))
		again := stale && !anew && ctx.Err() == nil && c.payload.replayable() && (x.unsent || c.repeatable())
		fail = x.fail(ctx, err)
		x.close()
		if !again {
			return nil, fail
		}
		c.pool.metrics.stale.Inc()
	}
}

// roundTrip sends the request and reads the answer as far as the end of its header.
func (x *exchange) roundTrip(ctx context.Context) (err error) {
	c, conn := x.call, x.conn
	if conn.out, err = appendHead(conn.out[:0], c, c.upgrade); err != nil {
		return &failure{reason: notSendable, err: err}
	}
	conn.out = append(conn.out, c.payload.bytes...)
	conn.wait = limit{c.pool.cfg.Timeouts.FirstByte, c.deadline}
	x.release = afterFunc(ctx, conn.interrupt)
	n, err := conn.ask(c.payload.stream == nil, x.whileSending())
	x.unsent = n == 0
	if err != nil {
		return err
	}
	if c.payload.stream != nil {
		if err := x.startBody(); err != nil {
			return err
		}
	}
	return x.readHead()
}

// afterFunc is context.AfterFunc, without its detour for a context that can do that by itself, as a server's can.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if own, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

// whileSending is how long an endpoint may keep from reading.
func (x *exchange) whileSending() limit {
	return limit{x.call.pool.cfg.Timeouts.Idle, x.call.deadline}
}

// startBody starts to send the body, unless the endpoint is to be asked first and answers without it.
func (x *exchange) startBody() error {
	c := x.call
	if c.r.ProtoMajor == 1 {
		// Or net/http would read the rest of the body before it lets the answer out. Where w cannot, it does just that.
		_ = http.NewResponseController(c.w).EnableFullDuplex()
	}
	if c.payload.expects {
		x.conn.wait.patience = continueWait
		err := x.conn.fill()
		if err != nil && !isTimeout(err) {
			return err
		}
		if err == nil {
			return nil // readHead starts it when it has read a 100
		}
	}
	x.sendBody()
	return nil
}

func (x *exchange) sendBody() {
	x.conn.wait.patience = 0 // an endpoint that gets a body may take its time
	x.sending = x.call.send(x.conn, x.whileSending())
}

// readHead reads answers until the one that is not informational.
func (x *exchange) readHead() error {
	c, conn := x.call, x.conn
	for range maxInformational {
		block, err := conn.readBlock(c.pool.cfg.MaxHeader)
		if err != nil {
			return err
		}
		if err := parseHead(block, &conn.in); err != nil {
			return err
		}
		switch status := conn.in.status; {
		case status >= 200 || status == http.StatusSwitchingProtocols && offered(c.upgrade, conn.in.upgrade):
			x.answered()
			x.body = newBody(conn, c.r.Method)
			return nil
		case status == http.StatusSwitchingProtocols:
			return malformed("change of protocol that nobody asked for")
		case status == http.StatusContinue:
			if c.payload.stream != nil && x.sending == nil {
				x.sendBody()
			}
		default:
			c.inform(status, &conn.in)
		}
	}
	return malformed("too long row of informational answers")
}

// answered changes from waiting for an answer to waiting for the rest of it.
func (x *exchange) answered() {
	if x.sending != nil {
		x.sending.answered()
		x.conn.readBy = unknownDeadline
	}
	x.conn.wait = limit{x.call.pool.cfg.Timeouts.Idle, x.call.deadline}
}

// fail says why there is no answer. Where the client's body is at fault, its error counts.
func (x *exchange) fail(ctx context.Context, err error) *failure {
	if f := (*failure)(nil); errors.As(err, &f) {
		return f
	}
	if s := x.sending; s != nil {
		select {
		case <-s.done:
			if s.ours && ctx.Err() == nil {
				return &failure{reason: notSendable, err: bodyError(s.err)}
			}
		default:
		}
	}
	if err == io.EOF && x.conn.end > x.conn.start {
		err = io.ErrUnexpectedEOF
	}
	f := classify(ctx, err)
	f.unsent = x.unsent
	return f
}

// close ends the exchange and its connection.
func (x *exchange) close() {
	if x.release != nil {
		x.release()
	}
	_ = x.conn.Close()
	x.endSending()
	x.e.gone(x.conn)
}

// endSending waits until nobody reads the client's body any more. The answer is complete, or there will be none: what is left of
// the body is not for anyone.
func (x *exchange) endSending() {
	s := x.sending
	if s == nil {
		return
	}
	_ = x.conn.Close()
	if !s.read.Load() {
		x.call.endRequest()
	}
	<-s.done
}

// endRequest makes reads of the client's body fail, and has its connection closed after the answer: what is left of the body must
// not be taken for a request.
func (c *call) endRequest() {
	c.w.Header().Set("Connection", "close")
	// Closing the body would wait for the very read that is to be ended, except in HTTP/2.
	if c.r.ProtoMajor != 1 || http.NewResponseController(c.w).SetReadDeadline(time.Unix(1, 0)) != nil {
		_ = c.r.Body.Close()
	}
}

// sentAll reports whether the endpoint got the whole request.
func (x *exchange) sentAll() bool {
	s := x.sending
	if s == nil {
		return x.call.payload.stream == nil
	}
	if !s.read.Load() {
		return false
	}
	timer := time.NewTimer(lastWrite)
	defer timer.Stop()
	select {
	case <-s.done:
		return s.err == nil
	case <-timer.C:
		return false
	}
}

// status implements answer.
func (x *exchange) status() int { return x.conn.in.status }

// discard implements answer.
func (x *exchange) discard() {
	x.close()
	x.e.inFlight.Add(-1)
}

// finish ends the exchange after a whole answer, and keeps the connection where another may follow on it.
func (x *exchange) finish() {
	if x.conn.in.close || !x.sentAll() {
		x.discard()
		return
	}
	if !x.release() || !x.conn.rest() {
		x.release = nil
		x.discard()
		return
	}
	e, conn := x.e, x.conn
	*x = exchange{} // an idle connection holds on to nothing
	e.inFlight.Add(-1)
	e.keep(conn)
}
