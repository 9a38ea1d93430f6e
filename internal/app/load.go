package app

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/sumunio/sumun/internal/app/settings"
)

// A source is where a configuration comes from, and which modules it is for.
type source struct {
	file     string // "" where the environment alone says
	env      []string
	flags    map[string]string
	selected []module
	stamp    stamp // of the file, before it was read
}

func newSource(file string, env []string, flags map[string]string, selected []module) source {
	if file == "" {
		file = lookup(env, settings.ConfigVariable)
	}
	return source{file, env, flags, selected, stampOf(file)}
}

// load reads the configuration from the file, the environment and the flags, over the defaults, and completes it. The
// error joins everything that is wrong with what all nodes need and with the sections of the selected modules.
func (s source) load() (Config, error) {
	cfg := DefaultConfig()
	schema, err := settings.Of(cfg)
	if err != nil {
		return cfg, err
	}
	values, unread := schema.Load(&cfg, settings.Sources{File: s.file, Env: s.env, Flags: s.flags})
	cfg.complete()

	faults := settings.Flatten(unread)
	validated := values.Attribute("", cfg.Validate())
	for section, component := range map[string]validator{"http": cfg.HTTP, "sql": cfg.SQL, "keyring": cfg.Keyring, "pubsub": cfg.Pubsub} {
		validated = append(validated, values.Attribute(section, component.Validate())...)
	}
	validated = append(validated, values.Attribute("", missing(&cfg, s.selected))...)
	for _, m := range s.selected {
		for section, component := range m.sections(&cfg) {
			validated = append(validated, values.Attribute(section, component.Validate())...)
		}
	}
	return cfg, errors.Join(append(faults, inOrder(schema, validated)...)...)
}

// validator is the configuration of a component.
type validator interface{ Validate() error }

// inOrder sorts faults by the place of their key in the reference; those without a key come last.
func inOrder(schema *settings.Schema, faults []error) []error {
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	sorted := make([]error, 0, len(faults))
	taken := make([]bool, len(faults))
	for _, k := range schema.Keys() {
		for i, fault := range faults {
			if text := fault.Error(); !taken[i] && (strings.HasPrefix(text, k.Name+":") || strings.HasPrefix(text, k.Name+" ")) {
				sorted, taken[i] = append(sorted, fault), true
			}
		}
	}
	for i, fault := range faults {
		if !taken[i] {
			sorted = append(sorted, fault)
		}
	}
	return sorted
}

func lookup(env []string, name string) string {
	value := ""
	for _, entry := range env {
		if v, found := strings.CutPrefix(entry, name+"="); found {
			value = v
		}
	}
	return value
}

// WriteDefaultConfig writes every key with its default and its meaning, as YAML.
func WriteDefaultConfig(w io.Writer) error {
	schema, err := settings.Of(DefaultConfig())
	if err != nil {
		return err
	}
	return schema.WriteYAML(w)
}

const referenceHead = `# Configuration

Generated from the program. The command "sumun config default" prints the same as a file to start from, and "sumun config
check" reports everything that is wrong with a configuration at once.

Each key can be given in a YAML file (--config FILE, or the variable SUMUN_CONFIG), as an environment variable and, for the
usual ones, as a flag; the later wins. Whatever is not known is refused. Durations are written like 500ms, 15m or 30d; lists
as YAML lists or, in a variable, separated by commas. An empty variable counts as not set.
`

// WriteConfigReference writes the reference of every key, as Markdown.
func WriteConfigReference(w io.Writer) error {
	schema, err := settings.Of(DefaultConfig())
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, referenceHead); err != nil {
		return err
	}
	return schema.WriteMarkdown(w)
}
