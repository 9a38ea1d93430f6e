package federation

import (
	"context"
	"errors"
	"strconv"
)

// kakaoProfile is where Kakao tells about addresses (https://developers.kakao.com/docs/latest/en/kakaologin/rest-api#req-user-info).
const kakaoProfile = "https://kapi.kakao.com/v2/user/me"

// newKakao is Kakao. People may keep their address to themselves, and an address that Kakao shows is theirs only while it is both
// valid (not taken over by another Kakao account) and verified; the ID token says neither. Subjects are the app's own.
func newKakao(l link) provider {
	if len(l.cfg.Scopes) == 0 {
		l.cfg.Scopes = []string{"openid", "profile_nickname", "account_email"}
	}
	o := newOpenID(l)
	o.profile = func(ctx context.Context, o *openID, s *seen) error {
		var me struct {
			ID      int64 `json:"id"`
			Account struct {
				Email    string `json:"email"`
				Valid    bool   `json:"is_email_valid"`
				Verified bool   `json:"is_email_verified"`
				Profile  struct {
					Nickname string `json:"nickname"`
				} `json:"profile"`
			} `json:"kakao_account"`
		}
		if err := o.get(ctx, kakaoProfile, s.token.AccessToken, &me); err != nil {
			return err
		}
		if strconv.FormatInt(me.ID, 10) != s.id.Subject {
			return ErrAnswer.Wrap(errors.New("the profile is about somebody else"))
		}
		s.id.Email = me.Account.Email
		s.id.EmailVerified = me.Account.Email != "" && me.Account.Valid && me.Account.Verified
		if s.id.Name == "" {
			s.id.Name = me.Account.Profile.Nickname
		}
		return nil
	}
	return o
}
