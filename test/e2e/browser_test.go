package e2e_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const (
	chromiumVariable   = "SUMUN_TEST_CHROMIUM"
	axeVariable        = "SUMUN_TEST_AXE"
	screenshotVariable = "SUMUN_E2E_SCREENSHOTS"

	// stepPatience bounds each step in the browser.
	stepPatience = 60 * time.Second
)

type action = chromedp.Action[chromedp.Void]

// look is how a page is looked at.
type look struct {
	name          string
	width, height int64
	scheme        string // prefers-color-scheme
}

var (
	phone       = look{"phone", 360, 740, "light"}
	phoneDark   = look{"phone-dark", 360, 740, "dark"}
	desktop     = look{"desktop", 1280, 900, "light"}
	desktopDark = look{"desktop-dark", 1280, 900, "dark"}
)

// profile says what a person's browser is like.
type profile struct {
	s       *server
	name    string // of its screenshots
	lang    string
	scripts bool
	looks   []look // every page is checked in each of them
	axe     string // source of axe-core; empty: pages are not checked for accessibility
	leaves  string // the one other site that pages may lead to, or ""
}

// browser is one person's browser, with cookies of its own.
type browser struct {
	profile
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	faults []string // what went wrong unseen: errors in the console, requests to others
}

// startChromium starts the browser that all tests of pages share; every person in it gets a profile of their own.
func startChromium(t *testing.T) context.Context {
	t.Helper()
	path := demanded(t, chromiumVariable)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("lang", "en"))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(t.Logf))
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// readAxe reads axe-core, without which the pages are not tested.
func readAxe(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(os.Getenv(axeVariable))
	if err != nil {
		t.Fatalf("%s: %v", axeVariable, err)
	}
	return string(source)
}

// newBrowser opens a browser for one person.
func newBrowser(t *testing.T, chromium context.Context, p profile) *browser {
	t.Helper()
	ctx, cancel := chromedp.NewContext(chromium, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // opens the tab, which lives as long as the context of this call
		t.Fatal(err)
	}
	b := &browser{profile: p, t: t, ctx: ctx}
	accept := map[string]string{"en": "en-US,en;q=0.9", "ko": "ko-KR,ko;q=0.9,en;q=0.5"}[p.lang]
	b.do(
		run(network.Enable, network.EnableParams{}),
		run(log.Enable, cdp.Empty{}),
		run(network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": accept}}),
		run(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !p.scripts}),
		run(emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true}),
		b.setLook(p.looks[0]),
	)
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	return b
}

// run is a protocol command as a step.
func run[P, R any](command cdp.Command[P, R], params P) action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

func (b *browser) setLook(l look) action {
	return chromedp.Steps(
		run(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.width < 600,
		}),
		run(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: l.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}),
	)
}

// listen notes what a person would not see, and should not be there.
func (b *browser) listen(event any) {
	fault := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault = fmt.Sprintf("exception: %v", e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			fault = fmt.Sprintf("console: %s %v", e.Type, e.Args)
		}
	case *log.EventEntryAdded:
		// What the server answered is judged by the tests; Chromium calls every refusal an error.
		if e.Entry.Source != log.EntrySourceNetwork && (e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning) {
			fault = fmt.Sprintf("log: %s: %s", e.Entry.Source, e.Entry.Text)
		}
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		known := err == nil && (u.Scheme == "data" || strings.HasPrefix(e.Request.URL, b.s.issuer+"/") || strings.HasPrefix(e.Request.URL, b.s.ops+"/") ||
			b.leaves != "" && strings.HasPrefix(e.Request.URL, b.leaves+"/"))
		if !known {
			fault = "request to " + e.Request.URL
		}
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 && e.Type != network.ResourceTypeDocument {
			fault = fmt.Sprintf("%s: %d", e.Response.URL, e.Response.Status)
		}
	}
	if fault != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.faults = append(b.faults, fault)
	}
}

// do runs steps that stay on the page.
func (b *browser) do(steps ...action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepPatience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("%s: %v", b.where(), err)
	}
}

// page is what a step has led to.
type page struct {
	name   string
	status int64
	path   string // and query
}

// lead runs steps that lead to another page, waits for it and checks it as a whole.
func (b *browser) lead(want page, steps ...action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepPatience)
	defer cancel()
	resp, err := chromedp.RunResponse(ctx, steps...)
	if err != nil {
		b.t.Fatalf("to %s, from %s: %v", want.name, b.where(), err)
	}
	want.status = cmp.Or(want.status, 200)
	if got := strings.TrimPrefix(b.where(), b.s.issuer); resp.Status != want.status || want.path != "" && got != want.path {
		b.t.Errorf("%s: %d at %s, want %d at %s", want.name, resp.Status, got, want.status, want.path)
	}
	b.check(want.name)
}

func (b *browser) where() string {
	ctx, cancel := context.WithTimeout(b.ctx, stepPatience)
	defer cancel()
	location, err := chromedp.Run(ctx, chromedp.Location())
	if err != nil {
		return err.Error()
	}
	return location
}

// open follows a link that was mailed, printed or typed.
func (b *browser) open(want page, target string) {
	b.t.Helper()
	if strings.HasPrefix(target, "/") {
		target = b.s.issuer + target
	}
	b.lead(want, chromedp.Navigate(target))
}

// click presses what the selector finds.
func (b *browser) click(want page, selector string) {
	b.t.Helper()
	b.lead(want, chromedp.Click(chromedp.CSS(selector)))
}

// fields are what a person enters, by the name of the field.
type fields map[string]string

// submit fills in the form with that action and sends it.
func (b *browser) submit(want page, form string, values fields) {
	b.t.Helper()
	b.fill(form, values)
	b.click(want, `main form[action="`+form+`"] button[type=submit]:not([aria-controls])`)
}

func (b *browser) fill(form string, values fields) {
	b.t.Helper()
	for name, value := range values {
		field := chromedp.CSS(`main form[action="` + form + `"] [name="` + name + `"]`)
		b.do(chromedp.Focus(field), chromedp.Evaluate[chromedp.Void](`document.activeElement.select()`), // what is there gets replaced
			run(input.InsertText, input.InsertTextParams{Text: value}))
	}
}

// text returns what a person reads on the page.
func (b *browser) text(selector string) string {
	b.t.Helper()
	return evaluate[string](b, `document.querySelector(`+quote(selector)+`)?.innerText ?? ""`)
}

// wantText fails unless the element says it.
func (b *browser) wantText(selector, words string) {
	b.t.Helper()
	if got := b.text(selector); !strings.Contains(got, words) {
		b.t.Errorf("%s at %s says %q, not %q", selector, b.where(), got, words)
	}
}

// evaluate asks the page. The debugger's questions are answered without scripts, too.
func evaluate[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, stepPatience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", b.where(), err)
	}
	return v
}

func quote(s string) string {
	text, _ := json.Marshal(s) // strings can always be written
	return string(text)
}

// check judges the page that is shown: language, title, accessibility and width in every look, and what happened unseen.
func (b *browser) check(name string) {
	b.t.Helper()
	if lang := evaluate[string](b, `document.documentElement.lang`); lang != b.lang {
		b.t.Errorf("%s is in %q, not %q", name, lang, b.lang)
	}
	if title := evaluate[string](b, `document.title`); title == "" {
		b.t.Errorf("%s has no title", name)
	}
	if b.axe != "" {
		evaluate[chromedp.Void](b, b.axe+"\n;void 0")
	}
	for _, l := range b.looks {
		b.do(b.setLook(l))
		if b.axe != "" {
			b.checkAccess(name, l)
		}
		if wide := evaluate[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); wide > 0 {
			b.t.Errorf("%s (%s): %d pixels have to be scrolled for sideways", name, l.name, wide)
		}
		b.picture(name, l)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		b.t.Errorf("%s: %s", name, fault)
	}
	b.faults = nil
}

// runAxe asks axe-core for serious faults. It is evaluated by the debugger, to which the page's content security policy does
// not apply.
const runAxe = `axe.run(document, {resultTypes: ["violations"], elementRef: false}).then((result) => result.violations
	.filter((v) => v.impact === "serious" || v.impact === "critical")
	.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.target.join(" ") + " (" + n.failureSummary + ")").join("; ")))`

func (b *browser) checkAccess(name string, l look) {
	b.t.Helper()
	for _, violation := range evaluate[[]string](b, runAxe) {
		b.t.Errorf("%s (%s): %s", name, l.name, violation)
	}
}

// picture writes a screenshot, where those are wanted.
func (b *browser) picture(name string, l look) {
	b.t.Helper()
	folder := os.Getenv(screenshotVariable)
	if folder == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, stepPatience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(folder, 0o755)
	}
	if err == nil {
		file := strings.ReplaceAll(fmt.Sprintf("%s-%s-%s.png", b.name, name, l.name), " ", "-")
		err = os.WriteFile(filepath.Join(folder, file), png, 0o644)
	}
	if err != nil {
		b.t.Errorf("screenshot of %s: %v", name, err)
	}
}
