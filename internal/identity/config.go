package identity

import (
	"errors"
	"fmt"
	"time"
)

// Config holds what operators decide about accounts.
type Config struct {
	ConfirmationLifetime time.Duration `yaml:"confirmation_lifetime" doc:"How long a mailed link to confirm an address can be used."`
	RecoveryLifetime     time.Duration `yaml:"recovery_lifetime" doc:"How long a mailed link to choose a new password can be used."`
	SetupLifetime        time.Duration `yaml:"setup_lifetime" doc:"How long the printed link for the first administrator can be used."`
	RecentSignIn         time.Duration `yaml:"recent_sign_in" doc:"How recent a sign-in must be to change the password or the address or to delete the account."`
	DeviceLifetime       time.Duration `yaml:"device_lifetime" doc:"How long a device that signed in is known; each sign-in extends it."`
	DirectoryCheck       time.Duration `yaml:"directory_check" doc:"How often a directory is asked whether its people are still there. The sessions of who has gone, or was disabled, end."`
	Attempts             Attempts      `yaml:"attempts" doc:"How fast passwords may be guessed."`
	Requests             Requests      `yaml:"requests" doc:"How often mails may be caused and links tried."`
}

// Attempts bounds password guessing. The first Free attempts cost nothing; each further one doubles the wait, from
// Delay; attempt LockAfter locks for LockFor, as does every one after it. One attempt is forgotten every Forget, and all of
// an account's by a success.
type Attempts struct {
	Account AttemptLimit `yaml:"account" doc:"Attempts on one account. Devices that the account knows are counted apart, and have their own share."`
	Address AttemptLimit `yaml:"address" doc:"Wrong passwords from one network address (IPv6: one /64), devices known to their account left out."`
}

// AttemptLimit is the limit of one kind of key.
type AttemptLimit struct {
	Free      int           `yaml:"free" doc:"Attempts that cost nothing."`
	Delay     time.Duration `yaml:"delay" doc:"The wait after the first attempt beyond them; it doubles with each further one."`
	LockAfter int           `yaml:"lock_after" doc:"The attempt that locks."`
	LockFor   time.Duration `yaml:"lock_for" doc:"How long a lock lasts."`
	Forget    time.Duration `yaml:"forget" doc:"One attempt is forgotten each time this has passed."`
}

// Requests bounds what strangers may cause. Rates are per hour.
type Requests struct {
	MailsPerAddress   int `yaml:"mails_per_address" doc:"Sign-up mails to one mail address per hour, and as many about recovery, and about a change of address; more are silently not sent."`
	MailsPerClient    int `yaml:"mails_per_client" doc:"Requests for such mails from one network address, per hour."`
	ConfirmsPerClient int `yaml:"confirms_per_client" doc:"Mailed links that do not exist, tried from one network address, per hour; and as many passwords judged for forms."`
	SignInsPerAccount int `yaml:"sign_ins_per_account" doc:"Sign-ins to one account, per hour."`
	EditsPerAccount   int `yaml:"edits_per_account" doc:"Edits of one account, per hour."`
}

// DefaultConfig is safe for a consumer service.
func DefaultConfig() Config {
	return Config{
		ConfirmationLifetime: 24 * time.Hour,
		RecoveryLifetime:     time.Hour,
		SetupLifetime:        24 * time.Hour,
		RecentSignIn:         10 * time.Minute,
		DeviceLifetime:       365 * 24 * time.Hour,
		DirectoryCheck:       time.Hour,
		Attempts: Attempts{
			Account: AttemptLimit{Free: 4, Delay: time.Second, LockAfter: 10, LockFor: 15 * time.Minute, Forget: time.Hour},
			Address: AttemptLimit{Free: 30, Delay: time.Second, LockAfter: 40, LockFor: 15 * time.Minute, Forget: time.Minute},
		},
		Requests: Requests{MailsPerAddress: 5, MailsPerClient: 60, ConfirmsPerClient: 600, SignInsPerAccount: 240, EditsPerAccount: 120},
	}
}

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	positive := func(key string, d time.Duration) {
		if d <= 0 {
			errs = append(errs, fmt.Errorf("%s: %v is not a positive duration; use a value such as 1h", key, d))
		}
	}
	positive("confirmation_lifetime", c.ConfirmationLifetime)
	positive("recovery_lifetime", c.RecoveryLifetime)
	positive("setup_lifetime", c.SetupLifetime)
	positive("recent_sign_in", c.RecentSignIn)
	positive("device_lifetime", c.DeviceLifetime)
	positive("directory_check", c.DirectoryCheck)
	errs = append(errs, c.Attempts.Account.validate("attempts.account"), c.Attempts.Address.validate("attempts.address"))
	for key, n := range map[string]int{
		"requests.mails_per_address": c.Requests.MailsPerAddress, "requests.mails_per_client": c.Requests.MailsPerClient,
		"requests.confirms_per_client":  c.Requests.ConfirmsPerClient,
		"requests.sign_ins_per_account": c.Requests.SignInsPerAccount, "requests.edits_per_account": c.Requests.EditsPerAccount,
	} {
		if n < 1 {
			errs = append(errs, fmt.Errorf("%s: %d is below 1; to switch every limit off use limits: off", key, n))
		}
	}
	return errors.Join(errs...)
}

// maxDoublings keeps the growing delay far from overflow.
const maxDoublings = 16

func (l AttemptLimit) validate(key string) error {
	var errs []error
	if l.Free < 1 {
		errs = append(errs, fmt.Errorf("%s.free: %d is below 1; people mistype", key, l.Free))
	}
	if l.LockAfter <= l.Free || l.LockAfter > l.Free+maxDoublings {
		errs = append(errs, fmt.Errorf("%s.lock_after: %d is not between free+1 and free+%d", key, l.LockAfter, maxDoublings))
	}
	for name, d := range map[string]time.Duration{"delay": l.Delay, "lock_for": l.LockFor, "forget": l.Forget} {
		if d <= 0 || d > 30*24*time.Hour {
			errs = append(errs, fmt.Errorf("%s.%s: %v is not between 1s and 720h", key, name, d))
		}
	}
	if l.Forget*time.Duration(l.LockAfter) < l.LockFor {
		errs = append(errs, fmt.Errorf("%s.lock_for: %v is longer than %d attempts take to be forgotten; raise %s.forget, or lower it",
			key, l.LockFor, l.LockAfter, key))
	}
	return errors.Join(errs...)
}
