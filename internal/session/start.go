package session

import (
	"context"
	"fmt"

	"github.com/sumunio/sumun/internal/keyring"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/token"
)

// Starting is a session between the transaction that decided on it and its life. It is for one goroutine.
type Starting struct {
	Session Session

	service *Service
	opening *opening
	finish  finish
}

// Begin decides in the caller's transaction that a session starts: with the cookie of our own pages, or with one grant. Its
// id is always new. Whatever else starts or ends sessions of the person waits until the transaction ends, so this belongs at
// its end. Once it has committed, Commit brings the session to life; without that there is none. What ends the session that it
// grows out of (Start.From) comes either before, and then this one never starts, or after.
func (s *Service) Begin(ctx context.Context, tx sqldb.Tx, start Start) (*Starting, error) {
	st, err := s.begin(ctx, tx, start)
	if err != nil {
		return nil, fmt.Errorf("start session: %w", err)
	}
	return st, nil
}

func (s *Service) begin(ctx context.Context, tx sqldb.Tx, start Start) (st *Starting, err error) {
	var key keyring.Key
	if !start.Page {
		if key, err = s.deps.Keyring.Current(ctx, MACPurpose); err != nil {
			return nil, err
		}
	}
	o, err := newOpening(start, key)
	if err != nil {
		return nil, err
	}
	if err := s.checkStart(&o.start); err != nil {
		return nil, err
	}
	done, err := s.store.start(ctx, tx, o)
	if err != nil {
		return nil, err
	}
	if err := s.alias(ctx, tx, o); err != nil {
		return nil, err
	}
	return &Starting{Session: o.session, service: s, opening: o, finish: done}, nil
}

// Commit brings the session to life after its transaction has committed, and makes its cookie or tokens. When the person had
// too many sessions, the least recently used have ended; Apply makes this node refuse their access tokens.
func (st *Starting) Commit(ctx context.Context) (Started, error) {
	if err := st.finish(ctx); err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	o := st.opening
	if o.start.Page {
		return Started{Session: o.session, Cookie: o.cookie.encode()}, nil
	}
	tokens, err := st.service.firstTokens(ctx, o)
	if err != nil {
		return Started{}, fmt.Errorf("start session: %w", err)
	}
	return Started{Session: o.session, Tokens: tokens}, nil
}

// firstTokens makes the tokens of a new grant.
func (s *Service) firstTokens(ctx context.Context, o *opening) (Tokens, error) {
	pair, err := s.paired(ctx, o.refresh)
	if err != nil {
		return Tokens{}, err
	}
	one, granted := o.session, granted(o)
	granted.ID = pair
	if o.start.Narrow != nil {
		if err := s.overtaken(ctx, granted); err != nil {
			return Tokens{}, err
		}
		if err := o.start.Narrow(&granted); err != nil {
			return Tokens{}, err
		}
	}
	access, err := s.deps.Tokens.Issue(ctx, granted)
	if err != nil {
		return Tokens{}, err
	}
	return Tokens{
		SessionID: one.ID, Access: access.Token, ExpiresIn: access.Lifetime,
		Refresh: o.refresh.encode(), RefreshExpiresIn: one.ExpiresAt.Sub(one.CreatedAt), Bound: o.start.Thumbprint != "", Granted: granted,
	}, nil
}

// granted is what the tokens of a new grant say, but for their id.
func granted(o *opening) token.Grant {
	one := o.session
	return token.Grant{
		Subject: one.Subject, ClientID: o.start.ClientID, Scope: o.start.Scope, Audience: o.start.Audience,
		SessionID: one.ID, GrantID: grantID(o.start.ClientID, o.grantID), ACR: one.ACR, AMR: one.AMR, AuthTime: one.AuthTime,
		Roles: one.Roles, Epoch: one.Epoch, ClientEpoch: o.start.ClientEpoch, Thumbprint: o.start.Thumbprint,
		Certificate: o.start.Form.Certificate, Opaque: o.start.Form.Opaque,
	}
}

// confinedTo is the client that a refresh token is authenticated for, "" for any.
func (start *Start) confinedTo() string {
	if !start.Confined {
		return ""
	}
	return start.ClientID
}

// binding is the thumbprint of the key or certificate that the grant is bound to, "" for none. Which it is shows when it is proved: both
// are hashes of what the other cannot be.
func (start *Start) binding() string {
	if start.Thumbprint == "" && start.Form.BindsRefresh {
		return start.Form.Certificate
	}
	return start.Thumbprint
}

// GrantID is the id of the session's first grant.
func (st *Starting) GrantID() string { return st.opening.grantID.String() }

// fill puts defaults where nothing is said, and cleans what came from outside.
func (start *Start) fill() {
	if start.ClientID == "" {
		start.ClientID = FirstParty
	}
	start.Device = NewDevice(start.Device.UserAgent, start.Device.Address)
}
