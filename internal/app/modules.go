package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/gateway/apikeys"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/web"
)

// A module is a part of Sumun that can be deployed by itself. Only the selected ones are validated and built.
type module struct {
	name string
	// needs are modules that this one asks over the network where they are not part of the same process.
	needs []string
	// sections returns the sections of the configuration that only this module reads.
	sections func(cfg *Config) map[string]validator
	// absent returns what the configuration must say about modules that are needed and elsewhere, and does not. It may be nil.
	absent func(cfg *Config) error
	// migrations are the tables of the module, those of its foundations included. Where no module has any, there is no database.
	migrations []sqldb.Migrations
	// build connects the module's services, with the units before it. It does no I/O beyond reading files that the configuration
	// names.
	build func(f *foundation, before []*unit) (*unit, error)
}

// A unit is a module that has been built.
type unit struct {
	mount    func(mux *http.ServeMux, api huma.API) // public routes
	mountOps func(mux *http.ServeMux)               // operators' routes
	verifier *auth.Verifier                         // for operations that declare security
	// entryProofs judges proofs for who stands before the unit and asks its verifier, too.
	entryProofs *auth.Proofs
	// revocations calls do with what was revoked, and is, until ctx ends; nil where the unit does not know.
	revocations func(ctx context.Context, do func(context.Context, []auth.Revocation))
	// keys knows API keys; nil where the unit has none.
	keys  apikeys.Exchanger
	pages *web.Renderer
	// crossOrigin are the patterns that other origins may call with unsafe methods.
	crossOrigin []string
	load        func(ctx context.Context) error // what must be in memory before traffic is served
	// front stands before the public routes of the other units, which are own; nil where there are none.
	front func(own http.Handler) (http.Handler, error)
	// notes are what operators should know although traffic is served.
	notes func() []string
	// notices are what to print once traffic is served; opsAddress is where operators are.
	notices func(ctx context.Context, opsAddress string) ([]notice, error)
	workers []worker
	close   func() error
}

// A worker runs until its context ends, and then returns nil.
type worker struct {
	name string
	run  func(ctx context.Context) error
}

// A notice is a line of what is printed at the start.
type notice struct{ label, text string }

// modules lists what there is, in the order in which it starts.
func modules() []module { return []module{identityModule(), gatewayModule()} }

// missing returns what the configuration does not say of modules that are needed and not selected.
func missing(cfg *Config, selected []module) error {
	var errs []error
	for _, m := range selected {
		elsewhere := slices.ContainsFunc(m.needs, func(name string) bool {
			return !slices.ContainsFunc(selected, func(other module) bool { return other.name == name })
		})
		if elsewhere && m.absent != nil {
			errs = append(errs, m.absent(cfg))
		}
	}
	return errors.Join(errs...)
}

// selectModules returns the named modules in their order, or all of them when none is named.
func selectModules(names []string) ([]module, error) {
	all := modules()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, m := range all {
		known = append(known, m.name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, usageError{fmt.Errorf("there is no module %q; there is: %s", name, strings.Join(known, ", "))}
		}
	}
	return slices.DeleteFunc(all, func(m module) bool { return !slices.Contains(names, m.name) }), nil
}

// tables returns the migrations of the modules.
func tables(selected []module) []sqldb.Migrations {
	var sets []sqldb.Migrations
	for _, m := range selected {
		sets = append(sets, m.migrations...)
	}
	return sets
}
