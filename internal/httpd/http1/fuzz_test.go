package http1_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/sumunio/sumun/internal/httpd/http1"
)

// Were a request read in another way than net/http reads it, a policy that is tested with one could be passed by the other.
func FuzzPlainRequestsReadAlike(f *testing.F) {
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /things?x=1;y HTTP/1.1\r\nhost: a:80\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
		"GET //a/b;c=d:@~$&+,-_.?a?b HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a? HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /a'(b)*!? HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //a/%2e%2e/b HTTP/1.1\r\nHost: [::1]\r\nconnection: Close\r\nX-A:  1 \t\r\nx-a:2\r\nPragma: no-cache\r\n\r\n",
		"DELETE /#a HTTP/1.1\r\nHost: a\r\nCookie: a=b; c\r\nX-Empty:\r\nX-\xff: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\nContent-Length: +1\r\nContent-Length: 1\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add(head)
	}
	f.Fuzz(func(t *testing.T, head string) {
		if i := strings.Index(head, "\r\n\r\n"); i >= 0 {
			head = head[:i+4]
		} else {
			head += "\r\n\r\n"
			head = head[:strings.Index(head, "\r\n\r\n")+4]
		}
		got := &http.Request{}
		if !http1.Parse(got, head) {
			return
		}
		want, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			t.Fatalf("%q is plain, and net/http says: %v", head, err)
		}
		if got.Method != want.Method || got.RequestURI != want.RequestURI || !reflect.DeepEqual(got.URL, want.URL) || got.Host != want.Host ||
			!reflect.DeepEqual(got.Header, want.Header) || got.ContentLength != want.ContentLength ||
			got.Close != want.Close || got.Proto != want.Proto || len(want.TransferEncoding) > 0 || len(want.Trailer) > 0 {
			t.Errorf("%q is\n%+v\nto net/http\n%+v", head, got, want)
		}
	})
}

// Were a stream of requests cut at other places than net/http cuts it, the rest of one person's request would be taken for another's.
func FuzzStreamsAreServedAlike(f *testing.F) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /read HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nPOST /part HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcPUT /part HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\nhelloGET http://b/ HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
		"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\nGET /limited HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /limited HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\nHost: a\n\n",
		"POST /limited HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloHEAD / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
		"get /panic HTTP/1.1\r\nHost:a\r\nX: a\r\n b\r\n\r\nGET / HTTP/1.0\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n",
	} {
		f.Add(text)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		var err error
		switch r.URL.Path {
		case "/read":
			body, err = io.ReadAll(r.Body)
		case "/part":
			body, err = io.ReadAll(io.LimitReader(r.Body, 1))
		case "/limited":
			body, err = io.ReadAll(http.MaxBytesReader(nil, r.Body, 2))
		case "/panic":
			panic(http.ErrAbortHandler)
		}
		fmt.Fprintf(w, "%q %q %q %v %d %v %v %q %v %v", r.Method, r.RequestURI, r.Host, r.Header, r.ContentLength, r.TransferEncoding, r.Close, body, err, r.Trailer)
	})
	ours, theirs := serve(f, http1.New(settings(handler))), serve(f, settings(handler))
	f.Fuzz(func(t *testing.T, text string) {
		text += "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" // or they would differ in what they say about half a head
		methods := methodsOf(text)
		want, got := answers(exchange(t, theirs, text), methods), answers(exchange(t, ours, text), methods)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q is answered with\n%q\nby net/http\n%q", text, got, want)
		}
	})
}
