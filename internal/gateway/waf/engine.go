package waf

import (
	"fmt"
	"slices"
	"strings"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/experimental"
)

// Engines are those that routes share. The zero Engines has none. It is for one goroutine at a time.
type Engines struct {
	made map[string]coraza.WAF
	used map[string]bool
}

// Begin starts a new configuration: what it does not ask for is gone after Commit.
func (e *Engines) Begin() { e.used = map[string]bool{} }

// Commit forgets the engines that nobody has asked for since Begin. Requests that use one finish with it.
func (e *Engines) Commit() {
	for key, made := range e.made {
		if e.used[key] {
			continue
		}
		delete(e.made, key)
		if c, ok := made.(experimental.WAFCloser); ok {
			_ = c.Close() // it lets go of compiled expressions, and cannot fail
		}
	}
}

// engine returns the one for a configuration, which is made if it is not there.
func (e *Engines) engine(cfg Config) (coraza.WAF, error) {
	rules := directives(cfg)
	key := fmt.Sprintf("%d %s", cfg.MaxBody, rules)
	if e.made == nil {
		e.made, e.used = map[string]coraza.WAF{}, map[string]bool{}
	}
	e.used[key] = true
	if made := e.made[key]; made != nil {
		return made, nil
	}
	made, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(rules).
		WithRequestBodyAccess().WithRequestBodyLimit(cfg.MaxBody).WithRequestBodyInMemoryLimit(cfg.MaxBody))
	if err != nil {
		return nil, fmt.Errorf("make the engine of the firewall: %w", err)
	}
	e.made[key] = made
	return made, nil
}

// directives configures an engine. Rules about answers are left out, and so is what writes to disk. That a request is cut is decided by
// the stage, so an engine that only detects is the same.
func directives(cfg Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, before, cfg.Paranoia, cfg.Paranoia, cfg.Threshold)
	except := slices.Clone(cfg.Except)
	slices.Sort(except)
	for _, id := range slices.Compact(except) {
		fmt.Fprintf(&b, "SecRuleRemoveById %d\n", id)
	}
	return b.String()
}

// before is what the core rule set wants to know, with the methods and the types that APIs use beside those of its time; and which parser
// reads which body. JSON by any name is JSON.
const before = `
SecRuleEngine On
SecAuditEngine Off
SecResponseBodyAccess Off
SecArgumentsLimit 1000
SecRequestBodyLimitAction Reject
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:application(?:/soap\+|/)|text/)xml" "id:200000,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/(?:[a-z0-9.+-]+\+)?json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/[a-z0-9.+-]+\+json\s*(?:;|$)" "id:200010,phase:1,t:none,t:lowercase,pass,nolog,ctl:ruleRemoveById=920420"
SecRule REQBODY_ERROR "!@eq 0" "id:200002,phase:2,t:none,log,deny,status:400,msg:'The body cannot be read'"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" "id:200003,phase:2,t:none,log,deny,status:400,msg:'The parts of the body cannot be read'"
Include @crs-setup.conf.example
SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%d,setvar:tx.detection_paranoia_level=%d"
SecAction "id:900110,phase:1,pass,t:none,nolog,setvar:tx.inbound_anomaly_score_threshold=%d"
SecAction "id:900200,phase:1,pass,t:none,nolog,setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE'"
SecAction "id:900220,phase:1,pass,t:none,nolog,setvar:'tx.allowed_request_content_type=|application/x-www-form-urlencoded| |multipart/form-data| |multipart/related| |text/xml| |application/xml| |application/soap+xml| |application/json| |application/csp-report| |application/reports+json|'"
Include @owasp_crs/REQUEST-*.conf
`
