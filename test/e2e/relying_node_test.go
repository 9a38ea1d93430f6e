package e2e_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const nodeModules = "SUMUN_TEST_NODE_MODULES"

// signInByLibrary runs a program of testdata that uses the npm library openid-client, with the folder of its modules, the issuer and
// arguments of its own. Wherever it sends somebody, the person with that address goes; what it says in the end is put into result.
func (s *server) signInByLibrary(t *testing.T, email string, result any, program string, args ...string) {
	t.Helper()
	args = append([]string{"testdata/" + program, demanded(t, nodeModules), s.issuer}, args...)
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := s.newTab(t)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if target, found := strings.CutPrefix(lines.Text(), "VISIT "); found {
			if _, err := io.WriteString(stdin, b.visit(target, email)+"\n"); err != nil {
				t.Fatal(err)
			}
		}
		if text, found := strings.CutPrefix(lines.Text(), "RESULT "); found {
			if err := json.Unmarshal([]byte(text), result); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, stderr.String())
	}
}

// Programs that exist must be able to sign people in without knowing Sumun: npm openid-client.
func TestOpenIDClient(t *testing.T) {
	t.Parallel()
	demanded(t, nodeModules)
	eachStore(t, func(t *testing.T, st store) {
		const callback = "http://127.0.0.1:9/cb"
		c := st.addClient(t, "--name", "Shop", "--redirect-uri", callback, "--post-logout-redirect-uri", callback+"/bye",
			"--scope", "openid", "--scope", "profile", "--scope", "email")
		st.addUser(t, "kim@example.com", "--name", "Kim")
		s := st.serve(t)
		var got struct {
			Email, Name, Refused, Left string
			Same, Before, After        bool
		}
		s.signInByLibrary(t, "kim@example.com", &got, "openid-client.mjs", c.ID, c.Secret, callback)
		if got.Email != "kim@example.com" || got.Name != "Kim" || !got.Same || !got.Before || got.After || got.Refused != "invalid_grant" || got.Left != "left" {
			t.Errorf("got %+v", got)
		}
	})
}
