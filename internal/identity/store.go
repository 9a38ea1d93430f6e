package identity

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/sumunio/sumun/internal/sqldb"
)

const accountColumns = `id, email, email_key, email_verified_at, user_name, name, locale, password_hash, password_changed_at,
	status, roles, version, created_at, updated_at, last_sign_in_at, phone, address, directory, directory_subject, directory_login`

func scanAccount(r sqldb.Row) (Account, error) {
	var a Account
	var userName sql.NullString
	var roles, address string
	var verified, passwordChanged, created, updated, signedIn int64
	err := r.Scan(&a.ID, &a.Email, &a.emailKey, &verified, &userName, &a.Name, &a.Locale, &a.passwordHash, &passwordChanged,
		&a.Status, &roles, &a.Version, &created, &updated, &signedIn, &a.Phone, &address, &a.Directory, &a.directorySubject, &a.directoryLogin)
	if err != nil {
		return Account{}, err
	}
	a.EmailVerified = verified > 0
	a.UserName = userName.String
	a.Roles = strings.Fields(roles)
	a.PasswordChangedAt = sqldb.Time(passwordChanged)
	a.CreatedAt, a.UpdatedAt = sqldb.Time(created), sqldb.Time(updated)
	if signedIn > 0 {
		a.LastSignInAt = sqldb.Time(signedIn)
	}
	a.Address, err = readAddress(address)
	return a, err
}

// found turns "no row" into the fault that the caller's reader understands.
func found[T any](v T, err error, missing error) (T, error) {
	if errors.Is(err, sqldb.ErrNotFound) {
		return v, missing
	}
	return v, err
}

const accountByID = `SELECT ` + accountColumns + ` FROM accounts WHERE id = $1`

func loadAccount(ctx context.Context, q sqldb.Queryer, id string) (Account, error) {
	a, err := sqldb.One(ctx, q, scanAccount, accountByID, id)
	return found(a, err, ErrNotFound)
}

const accountByEmail = `SELECT ` + accountColumns + ` FROM accounts WHERE email_key = $1`

// accountByAddress answers ErrNotFound when no account has the address.
func accountByAddress(ctx context.Context, q sqldb.Queryer, emailKey string) (Account, error) {
	a, err := sqldb.One(ctx, q, scanAccount, accountByEmail, emailKey)
	return found(a, err, ErrNotFound)
}

const accountByUserName = `SELECT ` + accountColumns + ` FROM accounts WHERE user_name_key = $1`

const accountByEntry = `SELECT ` + accountColumns + ` FROM accounts WHERE directory = $1 AND directory_subject = $2`

// A password, or a directory, that came meanwhile is not replaced: password_changed_at is in nobody's future.
const openByEntry = `UPDATE accounts SET directory = $1, directory_subject = $2, directory_login = $3, password_hash = '',
		password_changed_at = $4, email_verified_at = CASE WHEN email_verified_at = 0 THEN CAST($4 AS BIGINT) ELSE email_verified_at END, updated_at = $4
	WHERE id = $5 AND directory = ''`

const (
	// Proves at the moment of commit that the entry still opens the account.
	useEntry = `UPDATE accounts SET directory_login = $1, directory_checked_at = $2 WHERE id = $3 AND directory = $4 AND directory_subject = $5`
	// Of several nodes that choose the same account one gets it; the others come again with the next minute.
	claimCheck = `UPDATE accounts SET directory_checked_at = $1 WHERE directory_checked_at <= $2 AND id =
			(SELECT id FROM accounts WHERE directory = $3 AND directory <> '' AND directory_checked_at <= $2 ORDER BY directory_checked_at LIMIT 1)
		RETURNING ` + accountColumns
	setChecked   = `UPDATE accounts SET directory_checked_at = $1 WHERE id = $2 AND directory_checked_at = $3`
	countEntries = `SELECT directory, COUNT(*) FROM accounts WHERE directory <> '' GROUP BY directory ORDER BY directory`
	// Whom the directory did not keep when it was last asked is not released.
	releaseEntry = `UPDATE accounts SET directory = '', directory_subject = '', directory_login = '', directory_checked_at = 0,
			password_changed_at = $1, updated_at = $1
		WHERE id = $2 AND directory = $3 AND directory_checked_at < $4`
)

const listAccounts = `SELECT ` + accountColumns + ` FROM accounts WHERE id > $1 ORDER BY id LIMIT $2`

const insertAccount = `INSERT INTO accounts (id, email, email_key, email_verified_at, user_name, user_name_key, name, locale,
		password_hash, password_changed_at, status, roles, version, created_at, updated_at, last_sign_in_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, 1, $10, $10, 0)
	ON CONFLICT DO NOTHING`

// newAccount is a checked account about to be stored.
type newAccount struct {
	id                    string
	email, emailKey       string
	verified              bool
	userName, userNameKey string
	name, locale, hash    string
	roles                 []string
	now                   time.Time
}

// insert answers ErrEmailTaken or ErrUserNameTaken, decided by the unique columns.
func (n newAccount) insert(ctx context.Context, q sqldb.Queryer) error {
	var verifiedAt int64
	if n.verified {
		verifiedAt = sqldb.Micros(n.now)
	}
	res, err := q.ExecContext(ctx, insertAccount, n.id, n.email, n.emailKey, verifiedAt, nullable(n.userName),
		nullable(n.userNameKey), n.name, n.locale, n.hash, sqldb.Micros(n.now), strings.Join(n.roles, " "))
	if err != nil {
		return err
	}
	if done, err := changed(res); err != nil || done {
		return err
	}
	if _, err := accountByAddress(ctx, q, n.emailKey); err == nil {
		return ErrEmailTaken
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	return ErrUserNameTaken
}

func nullable(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

func changed(res sql.Result) (bool, error) {
	n, err := res.RowsAffected()
	return n > 0, err
}

const (
	// The version in the condition makes two edits of one state conflict.
	updateProfile = `UPDATE accounts SET name = $1, user_name = $2, user_name_key = $3, locale = $4, phone = $5, address = $6,
		version = version + 1, updated_at = $7 WHERE id = $8 AND version = $9`
	updateAddress = `UPDATE accounts SET email = $1, email_key = $2, email_verified_at = $3,
		version = version + 1, updated_at = $3 WHERE id = $4`
	updateStatus = `UPDATE accounts SET status = $1, version = version + 1, updated_at = $2 WHERE id = $3`
	// The old time in the condition makes password changes and resets conflict rather than overwrite one another, the old
	// hash a sign-in's upgrade; the new time is always a later one.
	updatePassword = `UPDATE accounts SET password_hash = $1, password_changed_at = $2, updated_at = $2
		WHERE id = $3 AND password_changed_at = $4`
	upgradePassword = `UPDATE accounts SET password_hash = $1 WHERE id = $2 AND password_hash = $3`
	verifyAddress   = `UPDATE accounts SET email_verified_at = $1 WHERE id = $2 AND email_verified_at = 0`
	// Proves at the moment of commit what the hash proved before: the account still has this password, if perhaps a newer
	// hash of it, and is active.
	markSignIn = `UPDATE accounts SET last_sign_in_at = $1
		WHERE id = $2 AND password_changed_at = $3 AND status = 'active'`
	holdAccount   = `UPDATE accounts SET updated_at = $1 WHERE id = $2 AND status = 'active'`
	deleteAccount = `DELETE FROM accounts WHERE id = $1 AND (CAST($2 AS BIGINT) = 0 OR version = $2)`
	countAdmins   = `SELECT COUNT(*) FROM accounts WHERE roles <> '' AND ' ' || roles || ' ' LIKE '% admin %'`
)

const (
	rememberPassword = `INSERT INTO account_passwords (account_id, password_hash, replaced_at) VALUES ($1, $2, $3)
		ON CONFLICT DO NOTHING`
	oldPasswords  = `SELECT password_hash FROM account_passwords WHERE account_id = $1 ORDER BY replaced_at DESC LIMIT $2`
	trimPasswords = `DELETE FROM account_passwords WHERE account_id = $1 AND replaced_at < (
		SELECT MIN(replaced_at) FROM (SELECT replaced_at FROM account_passwords WHERE account_id = $1
			ORDER BY replaced_at DESC LIMIT $2) AS kept)`
)

const (
	insertConfirmation = `INSERT INTO confirmations (token_hash, purpose, account_id, email, email_key, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	peekConfirmation = `SELECT purpose, account_id, email, email_key FROM confirmations
		WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3`
	// Deleting is using: of two at once one gets the row.
	useConfirmation = `DELETE FROM confirmations WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3
		RETURNING purpose, account_id, email, email_key`
	pendingEmail = `SELECT email FROM confirmations WHERE purpose = 'address' AND account_id = $1 AND expires_at > $2
		ORDER BY created_at DESC LIMIT 1`
	dropConfirmationsOf = `DELETE FROM confirmations WHERE account_id = $1`
	dropSetup           = `DELETE FROM confirmations WHERE purpose = 'setup'`
	sweepConfirmations  = `DELETE FROM confirmations WHERE token_hash IN
		(SELECT token_hash FROM confirmations WHERE expires_at <= $1 ORDER BY expires_at LIMIT 500)`
)

// purpose says what a one-time link is for.
type purpose string

const (
	purposeSignUp   purpose = "sign_up"
	purposeRecovery purpose = "recovery"
	purposeAddress  purpose = "address"
	purposeSetup    purpose = "setup"
)

// confirmation is what a one-time link stands for.
type confirmation struct {
	purpose         purpose
	account         string
	email, emailKey string
}

func scanConfirmation(r sqldb.Row) (confirmation, error) {
	var c confirmation
	var account sql.NullString
	err := r.Scan(&c.purpose, &account, &c.email, &c.emailKey)
	c.account = account.String
	return c, err
}

// issue stores a new link and returns its token.
func (c confirmation) issue(ctx context.Context, q sqldb.Queryer, now time.Time, lifetime time.Duration) (string, error) {
	s := newSecret()
	_, err := q.ExecContext(ctx, insertConfirmation, s.hash, c.purpose, nullable(c.account), c.email, c.emailKey,
		sqldb.Micros(now), sqldb.Micros(now.Add(lifetime)))
	return s.text, err
}

// readConfirmation runs peekConfirmation or useConfirmation.
func readConfirmation(ctx context.Context, q sqldb.Queryer, query, token string, p purpose, now time.Time) (confirmation, error) {
	if token == "" || len(token) > maxSecretBytes {
		return confirmation{}, ErrConfirmation
	}
	c, err := sqldb.One(ctx, q, scanConfirmation, query, secretHash(token), p, sqldb.Micros(now))
	return found(c, err, ErrConfirmation)
}

const (
	knownDevice = `SELECT COUNT(*) FROM account_devices WHERE account_id = $1 AND token_hash = $2 AND expires_at > $3`
	// Whoever last signed in under a directory's name has the device.
	knownDeviceOfEntry = `SELECT COUNT(*) FROM account_devices WHERE token_hash = $1 AND expires_at > $2 AND account_id IN
		(SELECT id FROM accounts WHERE directory = $3 AND directory <> '' AND directory_login = $4)`
	countDevices = `SELECT COUNT(*) FROM account_devices WHERE account_id = $1`
	keepDevice   = `INSERT INTO account_devices (account_id, token_hash, last_seen_at, expires_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (account_id, token_hash) DO UPDATE SET last_seen_at = $3, expires_at = $4`
	trimDevices = `DELETE FROM account_devices WHERE account_id = $1 AND token_hash NOT IN (
		SELECT token_hash FROM account_devices WHERE account_id = $1 ORDER BY last_seen_at DESC LIMIT $2)`
	forgetDevices = `DELETE FROM account_devices WHERE account_id = $1`
	sweepDevices  = `DELETE FROM account_devices WHERE token_hash IN
		(SELECT token_hash FROM account_devices WHERE expires_at <= $1 ORDER BY expires_at LIMIT 500) AND expires_at <= $1`
)

func scanText(r sqldb.Row) (s string, err error) { return s, r.Scan(&s) }

func scanCount(r sqldb.Row) (n int64, err error) { return n, r.Scan(&n) }
