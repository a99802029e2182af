package main

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// contract is what scripts outside of the project call: these verbs, with these
// flags, are never renamed.
const contract = `
serve --data --interface --dhcp --dhcp-range --advertise --dhcp-listen --pxe-listen --dhcp-force --script-guard --admin --boot --tftp --iscsi --target --loaders --log-format
machine list
machine show
machine add --mac --uuid --address --profile --iqn --auth --chap-user --chap-secret --reverse-user --reverse-secret
machine set
machine remove
machine enroll --replace
machine ignore
machine unknown
machine explain
machine boot --once
machine wake
volume list
volume show
volume create --size --block-size
volume set --shared --read-only
volume import --format
volume attach
volume clone --reset-at-boot
volume freeze
volume snapshot
volume rollback
volume promote
volume flatten
volume check
volume resize
volume export
volume remove
mapping list
mapping add --lun --boot --read-only
mapping set
mapping remove
profile list
profile show
profile set --file
profile preview --machine
script
attempt list
attempt show
attempt watch
attempt capture
explain
subnet list
subnet add
subnet set
subnet remove
loader list
loader add
loader remove
setting list
setting set
job list
job cancel
event list --follow
session list
session drop
lease list
lease drop
doctor
backup
restore
token create --scope
password
version
`

// verbs is every verb of the grammar by its words, with its flags.
func verbs(t *testing.T) map[string][]string {
	t.Helper()
	k, err := kong.New(&grammar{}, kong.Name("lunboot"), kong.Vars{"version": version})
	require.NoError(t, err)
	all := map[string][]string{}
	var walk func(n *kong.Node, path string)
	walk = func(n *kong.Node, path string) {
		for _, child := range n.Children {
			at := strings.TrimSpace(path + " " + child.Name)
			all[at] = nil
			for _, group := range child.AllFlags(false) {
				for _, f := range group {
					all[at] = append(all[at], "--"+f.Name)
				}
			}
			walk(child, at)
		}
	}
	walk(k.Model.Node, "")
	return all
}

func TestEveryVerbOfTheContractIsThere(t *testing.T) {
	all := verbs(t)
	for line := range strings.Lines(strings.TrimSpace(contract)) {
		verb, flags, _ := strings.Cut(strings.TrimSpace(line), " --")
		have, ok := all[verb]
		if !ok {
			t.Errorf("there is no verb %q", verb)
			continue
		}
		if flags == "" {
			continue
		}
		for _, f := range strings.Split(flags, " --") {
			if !slices.Contains(have, "--"+f) {
				t.Errorf("%s has no --%s; it has %v", verb, f, have)
			}
		}
	}
}

// listings are the verbs that list, and what they list of the API.
var listings = map[string]string{
	"machine list": "machines", "machine unknown": "unknown-machines", "volume list": "volumes", "mapping list": "mappings", "profile list": "profiles", "loader list": "loaders",
	"media list": "media", "attempt list": "attempts", "session list": "sessions", "lease list": "leases", "subnet list": "subnets", "setting list": "settings",
	"event list": "events", "job list": "jobs", "token list": "tokens", "user list": "users", "audit": "audit",
}

// keys are the names of the fields of what is listed.
func keys(items []map[string]any) []string {
	all := map[string]bool{}
	for _, i := range items {
		for k := range i {
			all[k] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// What a script reads with --json has the names of the API, whichever way it
// asks.
func TestEveryListingSpeaksTheWordsOfTheAPI(t *testing.T) {
	for verb := range verbs(t) {
		if _, ok := listings[verb]; !ok && (strings.HasSuffix(verb, " list") || strings.HasSuffix(verb, " unknown")) {
			t.Errorf("%s lists, and no one looks at its --json here", verb)
		}
	}
	a := started(t, furnished(t))
	for _, verb := range []string{
		"machine add lab1 --mac 02:00:00:00:00:01", "volume create v1 --size 8M", "mapping add lab1 v1 --lun 0", "token create robot --scope read",
	} {
		a.must(t, strings.Fields(verb)...)
	}
	for verb, noun := range listings {
		var plain []map[string]any
		out := a.must(t, append([]string{"--json"}, strings.Fields(verb)...)...)
		var list struct{ Items []map[string]any }
		if err := json.Unmarshal([]byte(out), &list); err != nil || list.Items == nil {
			// A list, or one object a line.
			if err := json.Unmarshal([]byte(out), &plain); err != nil {
				for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
					var one map[string]any
					if err := d.Decode(&one); err != nil {
						t.Errorf("lunboot --json %s is no JSON: %v\n%s", verb, err, out)
						break
					}
					plain = append(plain, one)
				}
			}
			list.Items = plain
		}
		resp, err := socketClient(a.dir).Get("http://lunboot/api/v1/" + noun)
		require.NoError(t, err)
		b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		var api struct{ Items []map[string]any }
		require.NoError(t, json.Unmarshal(b, &api), noun)
		if got, want := keys(list.Items), keys(api.Items); !slices.Equal(got, want) {
			t.Errorf("lunboot --json %s has the fields %v, the API's %s %v", verb, got, noun, want)
		}
		if slices.Contains([]string{"machines", "volumes", "mappings", "profiles", "loaders", "leases", "subnets", "settings", "tokens", "audit"}, noun) && len(list.Items) == 0 {
			t.Errorf("%s lists nothing", verb)
		}
	}
}
