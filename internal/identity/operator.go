package identity

import (
	"context"
	"errors"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// AddAccount makes an account on an operator's word. Faults are those of sign-up, and ErrEmailTaken.
func (s *Service) AddAccount(ctx context.Context, n NewAccount) (Account, error) {
	return s.create(ctx, n, audit.Operator, audit.Origin{}, nothingMore)
}

// Accounts lists accounts in the order they were made, from the one after the given id; limit rows at most.
func (s *Service) Accounts(ctx context.Context, after string, limit int) ([]Account, error) {
	return sqldb.All(ctx, s.deps.DB.Reader(), scanAccount, listAccounts, after, limit)
}

// AccountByAddress loads the account with an address, or answers ErrNotFound.
func (s *Service) AccountByAddress(ctx context.Context, email string) (Account, error) {
	addr, err := parseEmail(email)
	if err != nil {
		return Account{}, err
	}
	return accountByAddress(ctx, s.deps.DB.Reader(), addr.Key)
}

// SetStatus disables an account on an operator's word, which ends its sessions, or enables it again.
func (s *Service) SetStatus(ctx context.Context, account string, status Status) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		now := s.deps.Clock()
		res, err := tx.ExecContext(ctx, updateStatus, status, sqldb.Micros(now), account)
		if err != nil {
			return err
		}
		if done, err := changed(res); err != nil || !done {
			return errors.Join(err, ErrNotFound)
		}
		action := "account.enabled"
		if status == Disabled {
			action = "account.disabled"
		}
		err = s.deps.Audit.Append(ctx, tx, audit.Event{At: now, Account: account, Actor: audit.Operator, Action: action})
		if err != nil || status == Active {
			return err
		}
		if err := dropPrepared(ctx, tx, account); err != nil {
			return err
		}
		return s.deps.Sessions.EndAllTx(ctx, tx, account, session.AccountDisabled)
	})
	if err != nil {
		return err
	}
	s.applied(ctx)
	return nil
}

// SetupLink makes the one-time link with which the first administrator chooses a password, or answers "" when there is
// an administrator. A new link replaces the one before.
func (s *Service) SetupLink(ctx context.Context) (string, error) {
	var token string
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		token = ""
		admins, err := sqldb.One(ctx, tx, scanCount, countAdmins)
		if err != nil || admins > 0 {
			return err
		}
		if _, err := tx.ExecContext(ctx, dropSetup); err != nil {
			return err
		}
		token, err = confirmation{purpose: purposeSetup}.issue(ctx, tx, s.deps.Clock(), s.cfg.SetupLifetime)
		return err
	})
	if err != nil || token == "" {
		return "", err
	}
	return s.deps.Issuer + pathSetup + "?token=" + token, nil
}

// PendingSetup answers ErrConfirmation unless the link can be used.
func (s *Service) PendingSetup(ctx context.Context, token string, from audit.Origin) error {
	_, err := s.pending(ctx, token, purposeSetup, from)
	return err
}

// SetUp makes the first administrator.
func (s *Service) SetUp(ctx context.Context, token string, n NewAccount, from audit.Origin) (Account, error) {
	if err := s.PendingSetup(ctx, token, from); err != nil {
		return Account{}, err
	}
	n.Roles, n.Verified = []string{RoleAdmin}, true
	return s.create(ctx, n, "", from, func(ctx context.Context, tx sqldb.Tx, now time.Time) error {
		admins, err := sqldb.One(ctx, tx, scanCount, countAdmins)
		if err != nil {
			return err
		}
		if admins > 0 {
			return ErrConfirmation
		}
		_, err = readConfirmation(ctx, tx, useConfirmation, token, purposeSetup, now)
		return err
	})
}
