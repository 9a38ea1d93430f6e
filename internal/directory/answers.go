package directory

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/identity"
)

// adReason is where Active Directory hides why it refused a bind, a Windows error code in hexadecimal:
// "80090308: LdapErr: DSID-0C090446, comment: AcceptSecurityContext error, data 533, v3839".
var adReason = regexp.MustCompile(`\bdata ([0-9a-f]{3,8})\b`)

// lockedFor is what we say where a directory has locked an account and does not say for how long.
const lockedFor = 15 * time.Minute

// adReasons are those codes that mean more than a wrong password or name (52e, 525). Active Directory gives them only with the right
// password, except for 775, a locked account, which is answered as our own locks are: the same whether there is an account.
var adReasons = map[string]error{
	"530": ErrNotNow, "531": ErrNotNow, // hours, workstation
	"532": ErrPasswordExpired, "773": ErrPasswordExpired, // expired, must be changed first
	"533": ErrClosed, "701": ErrClosed, // disabled, account expired
	"775": identity.ErrTooManyAttempts.After(lockedFor),
}

// bindFault says what the refusal of a person's bind means.
func bindFault(err error) error {
	if err == nil {
		return nil
	}
	answered, ok := errors.AsType[*ldap.Error](err)
	if !ok {
		return ErrUnavailable.Wrap(err)
	}
	switch answered.ResultCode {
	case ldap.LDAPResultInvalidCredentials:
		if m := adReason.FindStringSubmatch(answered.Error()); m != nil && adReasons[m[1]] != nil {
			return adReasons[m[1]]
		}
		return identity.ErrCredentials
	case ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultInsufficientAccessRights,
		ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultConstraintViolation, ldap.LDAPResultInappropriateAuthentication:
		return identity.ErrCredentials // an entry without a password, or that is locked: not told apart from a wrong one
	}
	return serverFault(answered)
}

// serviceFault says what goes wrong before it is about the person.
func serviceFault(err error) error {
	answered, ok := errors.AsType[*ldap.Error](err)
	if !ok {
		return ErrUnavailable.Wrap(err)
	}
	return serverFault(answered)
}

// serverFault tells a directory that cannot answer now from one that never will.
func serverFault(e *ldap.Error) error {
	switch e.ResultCode {
	case ldap.ErrorNetwork, ldap.ErrorUnexpectedResponse, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable, ldap.LDAPResultTimeLimitExceeded,
		ldap.LDAPResultAdminLimitExceeded, ldap.LDAPResultServerDown, ldap.LDAPResultTimeout, ldap.LDAPResultConnectError:
		return ErrUnavailable.Wrap(fmt.Errorf("result %d: %w", e.ResultCode, e.Err))
	}
	return ErrRefused.Wrap(fmt.Errorf("result %d: %w", e.ResultCode, e.Err))
}
