package sqldbtest

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// Proxy stands between the program and its PostgreSQL server. While it is frozen, everything is accepted and nothing gets
// through, new connections included: what is left of a server behind a load balancer that has lost it.
type Proxy struct {
	URL string // of the server, by way of the proxy

	frozen sync.RWMutex // locked while it is
}

// NewProxy starts a proxy for the server of a URL. It ends after the test, and then must not be frozen.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, behind := &Proxy{}, u.Host
	u.Host = l.Addr().String()
	p.URL = u.String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.connect(client, behind) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return p
}

// Freeze keeps everything from getting through until the function it returns is called, which may be called twice.
func (p *Proxy) Freeze() (thaw func()) {
	p.frozen.Lock()
	return sync.OnceFunc(p.frozen.Unlock)
}

func (p *Proxy) connect(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(server, client) })
	wg.Go(func() { p.pass(client, server) })
	wg.Wait()
}

func (p *Proxy) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		p.frozen.RLock()
		_, failed := to.Write(buf[:n])
		p.frozen.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}
