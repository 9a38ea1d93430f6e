package directory

import (
	"github.com/go-ldap/ldap/v3"

	"github.com/sumunio/sumun/internal/identity"
)

// Question lets the fuzz target see what a directory would be asked.
func Question(d identity.Directory, typed string) (filter string, held bool) {
	l := d.(*LDAP)
	login, name, ok := l.names(typed)
	if !ok {
		return "", false
	}
	filter = l.question(login, name).Filter
	if _, err := ldap.CompileFilter(filter); err != nil {
		return err.Error(), true
	}
	return filter, true
}
