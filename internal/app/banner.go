package app

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/sumunio/sumun/internal/httpd"
	"github.com/sumunio/sumun/internal/mail"
)

// announce makes /readyz answer 200, and then prints where to go, and what is dangerous.
func (n *node) announce(ctx context.Context, stdout, stderr io.Writer) error {
	n.serving.Store(true)
	if err := n.ready(ctx); err != nil {
		return err
	}
	lines := []notice{
		{"Public address", n.cfg.Issuer + " (listening on " + n.public.Addr() + ")"},
		{"Operators' address", "http://" + n.ops.Addr()},
	}
	if n.cfg.usesData(n.db != nil) {
		lines = append(lines, notice{"Data folder", n.cfg.Data})
	}
	if n.db != nil {
		lines = append(lines, notice{"Database", n.db.Name()})
	}
	for _, u := range n.units {
		if u.notices == nil {
			continue
		}
		more, err := u.notices(ctx, n.ops.Addr())
		if err != nil {
			return err
		}
		lines = append(lines, more...)
	}
	for _, warning := range n.cfg.warnings() {
		n.warn(stderr, warning)
	}
	fmt.Fprintf(stdout, "Sumun is ready.\n\n")
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\t%s\n", l.label, l.text)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	_, err := fmt.Fprintln(stdout)
	return err
}

// warn is not subject to the log level. It stays a log event where a machine reads the log.
func (n *node) warn(stderr io.Writer, warning string) {
	if n.cfg.Log.Format == "json" {
		LogConfig{Level: "warn", Format: "json"}.logger(stderr).Warn("dangerous configuration", "warning", warning)
		return
	}
	fmt.Fprintf(stderr, "sumun: WARNING: %s\n", warning)
}

// warnings returns what is allowed and dangerous.
func (c Config) warnings() []string {
	all := c.HTTP.Warnings()
	if !c.Limits {
		all = append(all, "limits: off: passwords can be guessed as fast as this machine answers; for load tests only")
	}
	if !httpd.IsLoopback(c.OpsListen) {
		all = append(all, fmt.Sprintf("ops_listen: %s can be reached by others: profiles and metrics are not for everybody; "+
			"listen on 127.0.0.1, or let a firewall decide who gets there", c.OpsListen))
	}
	local := httpd.IsLoopbackHost(c.issuerHost())
	if !local && strings.HasPrefix(c.Issuer, "http:") {
		all = append(all, fmt.Sprintf("issuer: %s is plain HTTP: browsers will not keep its cookies safe, and anybody on the way "+
			"reads passwords and tokens; use https", c.Issuer))
	}
	if c.Mail.Transport == mail.TransportMailbox && !local {
		all = append(all, fmt.Sprintf("mail.transport: mailbox: no mail leaves this machine, although %s is a public address, and "+
			"operators can read everybody's links; set mail.transport to smtp", c.Issuer))
	}
	if c.Mail.Transport == mail.TransportMailbox && !httpd.IsLoopback(c.OpsListen) {
		all = append(all, "mail.transport: mailbox: its page is closed, because the operators' listener can be reached by others; "+
			"listen on 127.0.0.1 (ops_listen), or set mail.transport to smtp")
	}
	if strings.HasPrefix(c.Issuer, "https:") && !local && len(c.HTTP.TrustedProxies) == 0 &&
		(httpd.IsLoopback(c.Listen) || !c.TLS.Enabled()) {
		all = append(all, fmt.Sprintf("http.trusted_proxies: empty, although people can reach %s only through a proxy: its address "+
			"counts as everybody's, and one person's wrong passwords lock out all; list its network, such as 127.0.0.1/32", c.Issuer))
	}
	if local && !httpd.IsLoopback(c.Listen) && !c.TLS.Enabled() {
		all = append(all, fmt.Sprintf("issuer: %s means every visitor's own machine: links in mails will lead nowhere; "+
			"set issuer to the public address", c.Issuer))
	}
	return all
}
