package session

import (
	"errors"
	"fmt"
	"time"
)

// LostAnswer says what a refresh token is worth that was replaced, when its replacement was never used: most likely the
// answer that carried the replacement was lost on the way.
type LostAnswer string

// The policies.
const (
	// Reissue gives out a new successor; the unused one dies, and presenting it is theft.
	Reissue LostAnswer = "reissue"
	// Revoke takes it for theft.
	Revoke LostAnswer = "revoke"
)

// EarlyRefresh says what a refresh is worth that comes long before the access token expires: in the first half of its
// lifetime, though the person's roles are as they were. A client has no reason for that; a thief who tries a token has.
type EarlyRefresh string

// The policies.
const (
	EarlyAllow  EarlyRefresh = "allow"
	EarlyReject EarlyRefresh = "reject" // the client is told to come later; the token stays good
	EarlyRevoke EarlyRefresh = "revoke" // it counts as theft
)

// Pairing says whether a refresh token must come with the access token that was issued with it, expired or not.
type Pairing string

// The policies.
const (
	PairingOff      Pairing = "off"
	PairingRequired Pairing = "required"
)

// DPoP says whether a sign-in over the API binds its tokens to a key of the client (RFC 9449). What is bound stays bound.
type DPoP string

// The policies.
const (
	DPoPOff      DPoP = "off"
	DPoPOptional DPoP = "optional" // when the client proves a key
	DPoPRequired DPoP = "required"
)

// DPoPNonce says which proofs must carry a nonce of ours.
type DPoPNonce string

// The policies.
const (
	NonceOptional DPoPNonce = "optional" // those that were made at a wrong time by the client's clock
	NonceRequired DPoPNonce = "required" // all
)

// Store says where sessions are kept. Service.Move moves them.
type Store string

// The stores.
const (
	Anywhere Store = "auto"  // in Redis where there is one, else in SQL
	InSQL    Store = "sql"   // next to the accounts
	InRedis  Store = "redis" // where a surge of refreshes belongs
)

// Config holds what operators decide about sessions.
type Config struct {
	Store      Store         `yaml:"store" doc:"Where the sessions of new people are kept: sql, redis, or auto: redis where there is one. Whoever has sessions keeps them where they are; sumun sessions move moves them, and from then on says for new people as well."`
	Idle       time.Duration `yaml:"idle" doc:"A session that is not used for so long ends."`
	Lifetime   time.Duration `yaml:"lifetime" doc:"A session ends after so long, used or not."`
	Window     time.Duration `yaml:"window" doc:"For so long after a refresh, its token gets the same successor again."`
	LostAnswer LostAnswer    `yaml:"lost_answer" doc:"After the window, a replaced refresh token whose successor was never used gets a new one (reissue) or counts as theft (revoke)."`

	EarlyRefresh EarlyRefresh `yaml:"early_refresh" doc:"A refresh in the first half of the access token's lifetime is allowed (allow), refused until later (reject), or counts as theft (revoke). One that follows a change of roles is always allowed."`
	Pairing      Pairing      `yaml:"pairing" doc:"required: a refresh must bring the access token that came with its refresh token, expired or not, as a bearer token or in access_token, so that a refresh token alone is worth nothing. Sessions from before must sign in again. off: not."`

	DPoP      DPoP      `yaml:"dpop" doc:"Whether a sign-in over the API binds its tokens to a key that the client proves to have (DPoP, RFC 9449), so that whoever steals them cannot use them: optional: when it sends a proof; required: it must, and sessions from before must sign in again; off: never. Sessions that are bound stay bound."`
	DPoPNonce DPoPNonce `yaml:"dpop_nonce" doc:"required: every DPoP proof must carry a nonce of ours, which costs clients a second request now and then and keeps proofs from being made in advance. optional: only proofs of clients whose clock is more than a minute off."`

	Limit int `yaml:"limit" doc:"Live sessions per person."`

	Limits       []LimitRule `yaml:"limits" doc:"Other limits: role:NAME=N instead of limit for those with the role (the first that fits), client:NAME=N for the sessions of a client besides; N may be unlimited. :evict_oldest or :refuse after it takes the place of when_full."`
	WhenFull     WhenFull    `yaml:"when_full" doc:"Beyond a limit: evict_oldest ends the least recently used session, whose device is told why; refuse refuses the sign-in."`
	OnePerDevice bool        `yaml:"one_per_device" doc:"One session per person and kind of device, of desktop, mobile, tablet and other, as the User-Agent tells."`

	FeedStreams  int           `yaml:"feed_streams" doc:"How many services may follow the revocation feed (GET /v1/revocations) at one node at a time."`
	FeedPatience time.Duration `yaml:"feed_patience" doc:"A service that follows the revocation feed and does not take what it is sent within this time is cut off. It connects again and misses nothing."`
}

// DefaultConfig suits a consumer service.
func DefaultConfig() Config {
	return Config{
		Store:      Anywhere,
		Idle:       7 * 24 * time.Hour,
		Lifetime:   90 * 24 * time.Hour,
		Window:     10 * time.Second,
		LostAnswer: Reissue,

		EarlyRefresh: EarlyAllow,
		Pairing:      PairingOff,

		DPoP:      DPoPOptional,
		DPoPNonce: NonceOptional,

		Limit:    100,
		WhenFull: EvictOldest,

		FeedStreams:  1000,
		FeedPatience: 10 * time.Second,
	}
}

// Validate reports every value that cannot be used.
func (c Config) Validate() error {
	var errs []error
	if c.Store != Anywhere && c.Store != InSQL && c.Store != InRedis {
		errs = append(errs, fmt.Errorf("store: %q is unknown; use %q, %q or %q", c.Store, Anywhere, InSQL, InRedis))
	}
	if c.Idle < time.Minute {
		errs = append(errs, fmt.Errorf("idle: %v is below 1m; use a value such as 168h", c.Idle))
	}
	if c.Lifetime < c.Idle {
		errs = append(errs, fmt.Errorf("lifetime: %v is below idle, %v; raise it, or lower idle", c.Lifetime, c.Idle))
	}
	if c.Lifetime > 5*365*24*time.Hour {
		errs = append(errs, fmt.Errorf("lifetime: %v is above five years; use a value such as 2160h", c.Lifetime))
	}
	if c.Window < 0 || c.Window > time.Minute {
		errs = append(errs, fmt.Errorf("window: %v is not between 0s and 1m; it only has to cover a client's own retries, use 10s", c.Window))
	}
	if c.LostAnswer != Reissue && c.LostAnswer != Revoke {
		errs = append(errs, fmt.Errorf("lost_answer: %q is unknown; use %q or %q", c.LostAnswer, Reissue, Revoke))
	}
	if c.EarlyRefresh != EarlyAllow && c.EarlyRefresh != EarlyReject && c.EarlyRefresh != EarlyRevoke {
		errs = append(errs, fmt.Errorf("early_refresh: %q is unknown; use %q, %q or %q", c.EarlyRefresh, EarlyAllow, EarlyReject, EarlyRevoke))
	}
	if c.Pairing != PairingOff && c.Pairing != PairingRequired {
		errs = append(errs, fmt.Errorf("pairing: %q is unknown; use %q or %q", c.Pairing, PairingOff, PairingRequired))
	}
	if c.DPoP != DPoPOff && c.DPoP != DPoPOptional && c.DPoP != DPoPRequired {
		errs = append(errs, fmt.Errorf("dpop: %q is unknown; use %q, %q or %q", c.DPoP, DPoPOff, DPoPOptional, DPoPRequired))
	}
	if c.DPoPNonce != NonceOptional && c.DPoPNonce != NonceRequired {
		errs = append(errs, fmt.Errorf("dpop_nonce: %q is unknown; use %q or %q", c.DPoPNonce, NonceOptional, NonceRequired))
	}
	if c.FeedStreams < 1 || c.FeedStreams > maxFeedStreams {
		errs = append(errs, fmt.Errorf("feed_streams: %d is not between 1 and %d; use a value such as 1000", c.FeedStreams, maxFeedStreams))
	}
	if c.FeedPatience <= 0 || c.FeedPatience > time.Minute {
		errs = append(errs, fmt.Errorf("feed_patience: %v is not between 0s and 1m; use a value such as 10s", c.FeedPatience))
	}
	return errors.Join(append(errs, c.validateLimits())...)
}
