package federation

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// provider is how one provider is talked to.
type provider interface {
	// begin returns the address at which the provider asks the person.
	begin(ctx context.Context, f flow) (string, error)
	// finish verifies the answer and returns the person.
	finish(ctx context.Context, f flow, a answer) (Identity, error)
	// expects returns the issuer that an answer must name (RFC 9207), "" when answers of this provider name none; required says
	// that an answer without it is refused.
	expects(ctx context.Context) (issuer string, required bool, err error)
}

// answer is what came back through the browser. It is a stranger's text until the provider has confirmed it.
type answer struct {
	State, Code, Error, Issuer string
	User                       string     // Apple's, the first time
	Said                       *statement `json:",omitempty"` // verified when it was posted
}

// receiver is a provider whose posted answers are verified as they come, before the browser is asked to bring them again.
type receiver interface {
	receive(ctx context.Context, form url.Values) (answer, error)
}

// publisher is a provider to whom this installation describes itself.
type publisher interface {
	metadata() ([]byte, error)
}

// maxAnswerParameter bounds one parameter of an answer, in bytes.
const maxAnswerParameter = 4 << 10

func readAnswer(q url.Values) (answer, error) {
	for _, name := range []string{"state", "code", "error", "iss", "user"} {
		if v := q[name]; len(v) > 1 || len(v) == 1 && len(v[0]) > maxAnswerParameter {
			return answer{}, ErrState
		}
	}
	return answer{State: q.Get("state"), Code: q.Get("code"), Error: q.Get("error"), Issuer: q.Get("iss"), User: q.Get("user")}, nil
}

// refusal is what an error that came through the browser means (RFC 6749, section 4.1.2.1, and what providers add to it).
func (a answer) refusal() error {
	switch a.Error {
	case "":
		return nil
	case "access_denied", "user_cancelled_authorize", "user_cancelled_login", "consent_required", "interaction_required", "login_required":
		return ErrDenied
	case "temporarily_unavailable", "server_error":
		return ErrUnavailable
	}
	return ErrRefused.Wrap(fmt.Errorf("the provider answered %.64q", a.Error))
}

// newProvider returns the provider that p, which is complete and valid, describes.
func newProvider(p Provider, redirect string, client *http.Client, clock func() time.Time) provider {
	l := link{cfg: p, redirect: redirect, http: client, clock: clock}
	switch p.Kind {
	case KindGoogle:
		return newGoogle(l)
	case KindKakao:
		return newKakao(l)
	case KindNaver:
		return newNaver(l)
	case KindApple:
		return newApple(l)
	case KindGitHub:
		return newGitHub(l)
	case KindSAML:
		return newSAML(l)
	}
	return newOpenID(l)
}
