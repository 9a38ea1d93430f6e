package http1

import (
	"errors"
	"os"
	"sync"
	"time"
)

// watchAfter is how often somebody looks what is being served. Who is found twice is watched: most requests are over by then, and cost no
// timer of their own.
const watchAfter = 100 * time.Millisecond

// watch ends the context of a request whose client has gone, by reading from the connection what nobody else reads while a request is
// being served.
type watch struct {
	conn  *conn
	timer *time.Timer

	mu      sync.Mutex
	ended   sync.Cond
	serving *response // nil when no request is being served
	seen    *response // what was being served at the last look
	armed   bool      // there will be another look
	reading bool
	next    [1]byte // the first byte of a request that came early
	came    bool
}

func (w *watch) init(c *conn) {
	w.conn, w.ended.L = c, &w.mu
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
}

// begin is called before the handler, end behind it.
func (w *watch) begin(x *response) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serving = x
	if !w.armed {
		w.arm()
	}
}

func (w *watch) arm() {
	w.armed = true
	w.timer.Reset(watchAfter)
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serving = nil
	if w.reading {
		w.conn.setReadBy(past)
		for w.reading {
			w.ended.Wait()
		}
	}
	if w.came {
		w.conn.unread(w.next[0])
		w.came = false
	}
}

// look waits for the client to leave, or to say something.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.serving
	w.armed = false
	switch {
	case x == nil || w.reading || w.came:
		w.seen = nil
		return
	case x != w.seen || !x.body.done(): // it has just begun, or somebody else may be reading
		w.seen = x
		w.arm()
		return
	}
	w.reading = true
	w.conn.setReadBy(time.Time{})
	w.mu.Unlock()
	n, err := w.conn.tcp.Read(w.next[:])
	w.mu.Lock()
	w.reading, w.came = false, n == 1
	switch {
	case err == nil:
	case !errors.Is(err, os.ErrDeadlineExceeded):
		x.ctx.cancel()
	case w.serving == x: // a deadline of the handler's own, which is about the body
		w.arm()
	}
	w.ended.Broadcast()
}
