package directory_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// entry is somebody in the stand-in.
type entry struct {
	dn, password string
	refusal      string // what the bind with the right password is told instead
	always       bool   // whether it is told with a wrong one too
	attributes   map[string]string
}

// standIn answers as Active Directory does, on this machine, and badly where a test wants it to.
type standIn struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	people   []entry
	silent   bool // it accepts, and says nothing
	empty    bool // it has lost its tree
	searches []string
	binds    []string // "DN password"
}

func newStandIn(t *testing.T, people ...entry) *standIn {
	t.Helper()
	s := &standIn{t: t, people: people, conns: map[net.Conn]bool{}}
	s.start("127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

func (s *standIn) start(addr string) {
	s.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.listener, s.addr = l, l.Addr().String()
	s.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			go s.serve(c)
		}
	}()
}

// stop closes the listener and every connection.
func (s *standIn) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener.Close()
	s.drop()
}

func (s *standIn) drop() {
	for c := range s.conns {
		c.Close()
	}
	clear(s.conns)
}

func (s *standIn) url() string { return "ldap://" + s.addr }

func (s *standIn) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

const (
	serviceDN = "cn=sumun,dc=corp,dc=example"
	servicePW = "service"
	wrongPW   = "80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data 52e, v3839"
)

func (s *standIn) serve(c net.Conn) {
	defer c.Close()
	for {
		p, err := ber.ReadPacket(c)
		if err != nil || len(p.Children) < 2 {
			return
		}
		id, op := p.Children[0].Value, p.Children[1]
		s.mu.Lock()
		if s.silent {
			s.mu.Unlock()
			_, _ = io.Copy(io.Discard, c)
			return
		}
		var answers []*ber.Packet
		switch op.Tag {
		case ldap.ApplicationBindRequest:
			code, text := s.bind(op.Children[1].Data.String(), op.Children[2].Data.String())
			answers = append(answers, result(ldap.ApplicationBindResponse, code, text))
		case ldap.ApplicationSearchRequest:
			answers = s.search(op)
		case ldap.ApplicationExtendedRequest: // StartTLS, which is not spoken
			answers = append(answers, result(ldap.ApplicationExtendedResponse, ldap.LDAPResultProtocolError, "unsupported"))
		default:
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		for _, a := range answers {
			whole := ber.NewSequence("")
			whole.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
			whole.AppendChild(a)
			if _, err := c.Write(whole.Bytes()); err != nil {
				return
			}
		}
	}
}

func (s *standIn) bind(dn, password string) (code int, text string) {
	s.binds = append(s.binds, dn+" "+password)
	if dn == serviceDN && password == servicePW || password == "" { // an unauthenticated bind succeeds
		return ldap.LDAPResultSuccess, ""
	}
	for _, e := range s.people {
		if e.dn != dn {
			continue
		}
		if right := e.password == password; e.refusal != "" && (right || e.always) {
			return ldap.LDAPResultInvalidCredentials, e.refusal
		} else if right {
			return ldap.LDAPResultSuccess, ""
		}
	}
	return ldap.LDAPResultInvalidCredentials, wrongPW
}

func (s *standIn) search(op *ber.Packet) []*ber.Packet {
	filter, err := ldap.DecompileFilter(op.Children[6])
	if err != nil {
		return []*ber.Packet{result(ldap.ApplicationSearchResultDone, ldap.LDAPResultProtocolError, err.Error())}
	}
	s.searches = append(s.searches, filter)
	if s.empty {
		return []*ber.Packet{result(ldap.ApplicationSearchResultDone, ldap.LDAPResultNoSuchObject, "")}
	}
	var out []*ber.Packet
	for _, e := range s.people {
		if strings.Contains(strings.ToLower(filter), strings.ToLower("(userPrincipalName="+e.attributes["userPrincipalName"]+")")) ||
			strings.Contains(filter, "(sAMAccountName="+e.attributes["sAMAccountName"]+")") {
			out = append(out, e.packet())
		}
	}
	return append(out, result(ldap.ApplicationSearchResultDone, ldap.LDAPResultSuccess, ""))
}

func (e entry) packet() *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	p.AppendChild(octets(e.dn))
	all := ber.NewSequence("")
	for name, value := range e.attributes {
		one := ber.NewSequence("")
		one.AppendChild(octets(name))
		values := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		values.AppendChild(octets(value))
		one.AppendChild(values)
		all.AppendChild(one)
	}
	p.AppendChild(all)
	return p
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func result(tag ber.Tag, code int, text string) *ber.Packet {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), ""))
	p.AppendChild(octets(""))
	p.AppendChild(octets(text))
	return p
}
