package identity

import (
	"context"
	"time"

	"github.com/sumunio/sumun/internal/audit"
	"github.com/sumunio/sumun/internal/session"
	"github.com/sumunio/sumun/internal/sqldb"
)

// AddAccount makes an account on an operator's word. Faults are those of sign-up, and ErrEmailTaken.
func (s *Service) AddAccount(ctx context.Context, n NewAccount) (Account, error) {
	return s.create(ctx, n, audit.Origin{}, func(context.Context, sqldb.Tx, time.Time) error { return nil })
}

// Accounts lists accounts in the order they were made, from the one after the given id; limit rows at most.
func (s *Service) Accounts(ctx context.Context, after string, limit int) ([]Account, error) {
	return sqldb.All(ctx, s.deps.DB.Reader(), scanAccount, listAccounts, after, limit)
}

// SetStatus disables an account, which ends its sessions, or enables it again.
func (s *Service) SetStatus(ctx context.Context, account string, status Status) error {
	return s.asOperator(ctx, account, "account."+string(status), func(tx sqldb.Tx, a Account) error {
		if _, err := tx.ExecContext(ctx, updateStatus, status, sqldb.Micros(s.deps.Clock()), a.ID); err != nil {
			return err
		}
		if status == Active {
			return nil
		}
		return s.deps.Sessions.EndAllTx(ctx, tx, a.ID, "", session.AccountDisabled)
	})
}

// asOperator runs a change of one account in a transaction, with its line in the trail.
func (s *Service) asOperator(ctx context.Context, account, action string, change func(sqldb.Tx, Account) error) error {
	err := s.deps.DB.Write(ctx, func(tx sqldb.Tx) error {
		a, err := loadAccount(ctx, tx, account)
		if err != nil {
			return err
		}
		if err := change(tx, a); err != nil {
			return err
		}
		return s.deps.Audit.Append(ctx, tx, audit.Event{
			At: s.deps.Clock(), Account: a.ID, Actor: audit.Operator, Action: action,
		})
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
	return s.create(ctx, n, from, func(ctx context.Context, tx sqldb.Tx, now time.Time) error {
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
