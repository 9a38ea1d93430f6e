package upstream

import (
	"io"
	"net"
	"net/http"
	"time"
)

// Parsed is an answer as the parser understands it.
type Parsed struct {
	Status int
	Header map[string][]string
	Body   []byte
	Rest   []byte // after it
}

// ParseAnswer reads one answer to a request of the given method.
func ParseAnswer(from net.Conn, method string) (p Parsed, err error) {
	c := newConn(from, from)
	block, err := c.readBlock(8 << 10)
	if err != nil {
		return p, err
	}
	if err := parseHead(block, &c.in); err != nil {
		return p, err
	}
	p.Status, p.Header = c.in.status, map[string][]string{}
	for _, f := range c.in.fields {
		p.Header[f.name] = append(p.Header[f.name], f.value)
	}
	b := newBody(c, method)
	for scratch := make([]byte, 512); ; {
		part, err := b.next(scratch)
		if err == io.EOF {
			p.Rest = append(p.Rest, c.buffered()...)
			return p, nil
		}
		if err != nil {
			return p, err
		}
		p.Body = append(p.Body, part...)
	}
}

// WriteHead returns the head of a request as it is sent.
func WriteHead(r *http.Request, target, host string) (string, error) {
	if err := checkRequest(r, target, host); err != nil {
		return "", err
	}
	b, err := appendHead(nil, &call{r: r, target: target, host: host}, upgradeOf(r.Header))
	return string(b), err
}

// Estimate follows a quantile of durations.
func Estimate(share float64, of []time.Duration) time.Duration {
	var q quantile
	q.init(Hedge{Quantile: share})
	for _, d := range of {
		q.observe(d)
	}
	return time.Duration(q.estimate.Load())
}
