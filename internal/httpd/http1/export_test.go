package http1

import (
	"net/http"
	"runtime"
)

// Parse is what decides which requests are plain.
var Parse = parse

// AwaitEarly waits until the watch has seen that the next request has come, while the one of w is being served.
func AwaitEarly(w http.ResponseWriter) {
	watch := &w.(*response).conn.watch
	watch.mu.Lock()
	defer watch.mu.Unlock()
	for !watch.came {
		watch.ended.Wait()
	}
}

// AwaitWatch waits until somebody waits for the client of w to leave.
func AwaitWatch(w http.ResponseWriter) {
	watch := &w.(*response).conn.watch
	for {
		watch.mu.Lock()
		reading := watch.reading
		watch.mu.Unlock()
		if reading {
			return
		}
		runtime.Gosched()
	}
}

// AwaitWriter waits until somebody writes to w, and does not come to an end.
func AwaitWriter(w http.ResponseWriter) {
	x := w.(*response)
	for x.mu.TryLock() {
		x.mu.Unlock()
		runtime.Gosched()
	}
}

// AwaitReader waits until somebody reads the body of the request that w answers.
func AwaitReader(w http.ResponseWriter) {
	body := &w.(*response).body
	for body.mu.TryLock() {
		body.mu.Unlock()
		runtime.Gosched()
	}
}

// InSize is how long a plain head may be.
const InSize = inSize
