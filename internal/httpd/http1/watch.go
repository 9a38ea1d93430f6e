package http1

import (
	"errors"
	"os"
	"sync"
	"time"
)

// watchAfter is how long a request is served before somebody looks whether its client is there still: most are over by then.
const watchAfter = 100 * time.Millisecond

// watch ends the context of a request whose client has gone, by reading from the connection what nobody else reads while a request is
// being served.
type watch struct {
	conn  *conn
	timer *time.Timer

	mu      sync.Mutex
	ended   sync.Cond
	serving *response // nil when no request is being served
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
	w.serving = x
	w.mu.Unlock()
	w.timer.Reset(watchAfter)
}

func (w *watch) end() {
	w.timer.Stop()
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
	switch {
	case x == nil || w.reading || w.came:
		return
	case !x.body.done(): // somebody else may be reading
		w.timer.Reset(watchAfter)
		return
	}
	w.reading = true
	w.conn.setReadBy(time.Time{})
	w.mu.Unlock()
	n, err := w.conn.tcp.Read(w.next[:])
	w.mu.Lock()
	w.reading, w.came = false, n == 1
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		x.ctx.cancel()
	}
	w.ended.Broadcast()
}
