package directory_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sumunio/sumun/internal/directory"
	"github.com/sumunio/sumun/internal/keyring"
)

// What would refuse everybody at the first sign-in is told before the program starts, with the key that has to be changed.
func TestCheck(t *testing.T) {
	t.Parallel()
	there, gone := newStandIn(t, kim()), newStandIn(t)
	gone.stop()
	for name, tt := range map[string]struct {
		url, password, want string
	}{
		"right":          {there.url(), servicePW, ""},
		"wrong password": {there.url(), "other", "bind_password"},
		"down":           {gone.url(), servicePW, "connection refused"},
	} {
		s := adServer(tt.url)
		s.BindPassword = keyring.Secret(tt.password)
		err := directory.Check(t.Context(), directory.Config{Timeout: 5 * time.Second, Servers: []directory.Server{s}})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: answered with %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), tt.password) {
			t.Errorf("%s: tells the password: %v", name, err)
		}
	}
}
