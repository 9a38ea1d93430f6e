package app

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sumunio/sumun/auth"
	"github.com/sumunio/sumun/internal/sqldb"
	"github.com/sumunio/sumun/internal/web"
)

// A module is a part of Sumun that can be deployed by itself. Only the selected ones are validated and built.
type module struct {
	name string
	// sections returns the sections of the configuration that only this module reads.
	sections func(cfg *Config) map[string]validator
	// migrations are the tables of the module, those of its foundations included.
	migrations []sqldb.Migrations
	// build connects the module's services. It does no I/O beyond reading files that the configuration names.
	build func(f *foundation) (*unit, error)
}

// A unit is a module that has been built.
type unit struct {
	mount    func(mux *http.ServeMux, api huma.API) // public routes
	mountOps func(mux *http.ServeMux)               // operators' routes
	verifier *auth.Verifier                         // for operations that declare security
	pages    *web.Renderer
	// crossOrigin are the patterns that other origins may call with unsafe methods.
	crossOrigin []string
	load        func(ctx context.Context) error // what must be in memory before traffic is served
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
func modules() []module { return []module{identityModule()} }

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
