package typed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
)

func TestFaultsAreTheFieldsThatAnErrorSpeaksOf(t *testing.T) {
	two := errors.Join(store.Invalid("range", "it ends before it begins"), fmt.Errorf("save: %w", store.Invalid("dns", "no address")), store.Invalid("range", "again"))
	if got := Faults(two); !slices.Equal(got, []Fault{{"range", "It ends before it begins.", 0}, {"dns", "No address.", 0}}) {
		t.Errorf("%+v", got)
	}
	if got := Faults(&store.Error{Field: "text", Line: 4, Msg: "line 4 is wrong"}); len(got) != 1 || got[0].Line != 4 {
		t.Errorf("%+v", got)
	}
	if got := Faults(store.InUse("somebody has it")); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestOnlyTheFormThatWasSentIsFilledIn(t *testing.T) {
	const page = `<main><details><summary>A</summary><form method="post" action="/x"><input type="hidden" name="id" value="1"/><label>N <input name="n"/></label></form></details>` +
		`<details><summary>B</summary><form method="post" action="/x"><input type="hidden" name="id" value="2"/><input type="hidden" name="revision" value="9"/><label>N <input name="n" value="old"/></label><textarea name="t"></textarea><input type="password" name="p"/><input type="checkbox" name="c" checked/></form></details></main>`
	out, err := Refill([]byte(page), "/x", url.Values{"id": {"2"}, "revision": {"8"}, "n": {`"><script>`}, "t": {"</textarea>\r\nx"}, "p": {"hush"}}, []Fault{{"n", "No <b>.", 0}, {"none", "x", 0}})
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(out), "<summary>B")
	if strings.Contains(first, "script") || strings.Contains(first, "invalid") || strings.Contains(first, "open") && !strings.HasSuffix(first, `<details open="">`) {
		t.Errorf("the other form is touched: %s", first)
	}
	for _, want := range []string{`value="&#34;&gt;&lt;script&gt;"`, `aria-describedby="fault-n" autofocus=""`, `</label><p class="fault" id="fault-n">No &lt;b&gt;.</p>`, "&lt;/textarea&gt;\nx", `<input type="checkbox" name="c"/>`, `name="revision" value="9"`} {
		if !strings.Contains(second, want) {
			t.Errorf("it lacks %s:\n%s", want, second)
		}
	}
	if strings.Contains(second, "hush") {
		t.Error("a password is sent back")
	}
	if out, err := Refill([]byte(page), "/elsewhere", url.Values{"n": {"x"}}, nil); err != nil || string(out) != page {
		t.Errorf("a page without the form is changed: %v", err)
	}
}

func TestASubnetIsShownAsItIsRead(t *testing.T) {
	n := store.Subnet{ID: 3, Prefix: netip.MustParsePrefix("10.9.0.0/24")}
	fields := map[string]string{"mode": "full", "range": "10.9.0.10-10.9.0.20", "router": "10.9.0.1", "dns": "10.9.0.1 9.9.9.9", "ntp": "10.9.0.3", "domain": "lab.example", "search": "a.example b.example", "lease_time": "1h30m", "next_server": "10.9.0.2"}
	if err := Subnet(&n, func(name string) string { return fields[name] }); err != nil {
		t.Fatal(err)
	}
	got := SubnetFields(n)
	for name, want := range fields {
		if got[name] != want {
			t.Errorf("%s is shown as %q, want %q", name, got[name], want)
		}
	}
}

func TestEverySettingStandsOnOneCard(t *testing.T) {
	seen := map[store.SettingKey]int{}
	for _, c := range Cards() {
		for _, k := range c.Keys {
			seen[k]++
		}
	}
	all, err := store.Settings(t.Context(), none{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if seen[s.Key] != 1 {
			t.Errorf("%s stands on %d cards", s.Key, seen[s.Key])
		}
	}
}

// none is a table of settings that nobody changed.
type none struct{}

func (none) Setting(context.Context, string) (string, bool, error) { return "", false, nil }
