package api_test

import (
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/api"
	"lunboot/web/auth"
)

func TestATableOfMachinesIsJudgedImportedAndExported(t *testing.T) {
	h := open(t)
	table := "name;macs;tags\r\nlab-01;00-07-E9-0F-EA-F5;room 3\r\nlab-02;00:07:e9:0f:ea:f6;\r\nlab-03;nothing;\r\n"
	var out store.MachineImport
	h.must(200, "POST", "/api/v1/machines.csv?dry_run=true", table).json(t, &out)
	if out.Done || out.New != 2 || out.Refused != 1 || out.Lines[2].Line != 4 || out.Lines[2].Field != "macs" {
		t.Errorf("it is judged as %+v", out)
	}
	h.must(404, "GET", "/api/v1/machines/lab-01", "")
	if a := h.must(409, "POST", "/api/v1/machines.csv?match=other", table); !strings.Contains(string(a.body), "nothing was imported") {
		t.Errorf("another state: %s", a.body)
	}
	h.must(200, "POST", "/api/v1/machines.csv?match="+out.Match, table).json(t, &out)
	if !out.Done || out.Lines[0].Machine == 0 {
		t.Errorf("it is imported as %+v", out)
	}
	if a := h.must(422, "POST", "/api/v1/machines.csv", "name,chap_secret\na,b"); !strings.Contains(string(a.body), `"body.file"`) {
		t.Errorf("secrets: %s", a.body)
	}
	h.must(422, "POST", "/api/v1/machines.csv", "")
	a := h.must(200, "GET", "/api/v1/machines.csv?search=tag:%22room+3%22", "")
	if a.kind != "text/csv; charset=utf-8" || !strings.Contains(string(a.body), "lab-01,00:07:e9:0f:ea:f5") || strings.Contains(string(a.body), "lab-02") {
		t.Errorf("%s:\n%s", a.kind, a.body)
	}
	var m api.Machine
	h.must(200, "GET", "/api/v1/machines/lab-01?secrets=true", "").json(t, &m)
	if m.CHAP.Secret == "" || strings.Contains(string(a.body), m.CHAP.Secret) || strings.Contains(string(a.body), m.Reverse.Secret) {
		t.Error("a secret leaves with the table")
	}
	all := h.must(200, "GET", "/api/v1/machines.csv", "")
	h.must(200, "POST", "/api/v1/machines.csv?dry_run=true", string(all.body)).json(t, &out)
	if out.Same != 2 || len(out.Lines) != 2 {
		t.Errorf("what was exported changes %+v", out)
	}
	h.must(422, "GET", "/api/v1/machines.csv?search=state:broken", "")
	h.as = auth.Identity{Actor: "viewer", Scope: store.ScopeRead}
	h.must(403, "POST", "/api/v1/machines.csv?dry_run=true", table)
	h.must(200, "GET", "/api/v1/machines.csv", "")
}

func TestMachinesAreListedByTheSearchOfThePages(t *testing.T) {
	h := open(t)
	for _, m := range []string{`"name":"lab-01","macs":["00:07:e9:0f:ea:01"],"tags":["room 3"]`, `"name":"lab-02","macs":["00:07:e9:0f:ea:02"],"profile":"local"`, `"name":"pc-01","macs":["00:07:e9:0f:ea:03"],"profile":"local"`} {
		h.must(201, "POST", "/api/v1/machines", "{"+m+"}")
	}
	for query, want := range map[string]string{
		"":                                    "lab-01 lab-02 pc-01 of 3",
		"limit=1&offset=1":                    "lab-02 of 3",
		"search=profile:local+lab":            "lab-02 of 1",
		"search=lab+ea02":                     "lab-02 of 1",
		"search=tag:%22room+3%22":             "lab-01 of 1",
		"tag=room+3":                          "lab-01 of 1",
		"search=mac:0f-EA-03":                 "pc-01 of 1",
		"search=state:failed":                 "lab-02 of 1",
		"search=state:never&sort=-name":       "pc-01 lab-01 of 2",
		"sort=attention":                      "lab-02 lab-01 pc-01 of 3",
		"sort=-name&limit=1":                  "pc-01 of 3",
		"sort=profile&limit=2&offset=1":       "pc-01 lab-01 of 3",
		"search=state:never&limit=1":          "lab-01 of 2",
		"search=state:never&limit=5&offset=9": " of 2",
	} {
		var out api.List[api.Machine]
		h.must(200, "GET", "/api/v1/machines?"+query, "").json(t, &out)
		var names []string
		for _, m := range out.Items {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " ") + " of " + string(rune('0'+out.Total)); got != want {
			t.Errorf("%s finds %s, want %s", query, got, want)
		}
	}
	h.must(422, "GET", "/api/v1/machines?search=state:broken", "")
	h.must(422, "GET", "/api/v1/machines?search=tag:", "")
	h.must(422, "GET", "/api/v1/machines?sort=colour", "")
}

func TestEveryListTakesASearchASortAndAPage(t *testing.T) {
	h := open(t)
	for _, v := range []string{`"name":"win11","size":1048576`, `"name":"spare","size":2097152,"read_only":true`, `"name":"disk","size":3145728`} {
		h.must(201, "POST", "/api/v1/volumes", "{"+v+"}")
	}
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-01","macs":["00:07:e9:0f:ea:01"]}`)
	h.must(201, "POST", "/api/v1/mappings", `{"machine":"lab-01","volume":"spare"}`)
	h.must(204, "PUT", "/api/v1/unknown-machines/52:54:00:12:34:56/ignored", `{"ignored":true}`)
	h.must(201, "POST", "/api/v1/subnets", `{"interface":"eth1","prefix":"10.77.0.0/24","mode":"full"}`)
	for _, u := range []string{`"name":"anna","role":"admin"`, `"name":"vera","role":"viewer"`} {
		h.must(201, "POST", "/api/v1/users", "{"+u+`,"password":"a long password"}`)
	}
	h.must(201, "POST", "/api/v1/tokens", `{"name":"ci","scope":"read"}`)
	h.happen(store.Event{Kind: store.EventDHCPDiscover, Machine: 1}, store.Event{Kind: store.EventISCSINoLUN, Machine: 1}, store.Event{Kind: store.EventDHCPDiscover})
	for path, want := range map[string]string{
		"/volumes":                                          "disk spare win11 3",
		"/volumes?sort=name":                                "disk spare win11 3",
		"/volumes?sort=-size&limit=1&offset=1":              "spare 3",
		"/volumes?search=machine:lab-01":                    "spare 1",
		"/volumes?search=used:no+state:ready":               "disk win11 2",
		"/profiles?search=kind:local":                       "local 1",
		"/sessions?search=by:ipxe":                          " 0",
		"/sessions?search=by:os":                            " 1",
		"/leases?search=state:bound":                        " 0",
		"/media?search=kind:iso":                            " 0",
		"/jobs?search=state:failed":                         " 0",
		"/loaders?search=inside:iscsi&sort=-rung":           "snponly.efi 1",
		"/loaders?search=firmware:bios":                     " 0",
		"/attempts?search=outcome:failed&sort=machine":      " 0",
		"/audit?search=what:volume+win11&sort=-at":          " 1",
		"/audit?search=subject:spare+who:tester":            " 1",
		"/audit?noun=volume&search=since:1h&sort=subject":   " 3",
		"/audit?search=until:2d":                            " 0",
		"/subnets?search=interface:eth1":                    " 1",
		"/subnets?search=mode:off&sort=-network":            " 0",
		"/mappings?search=volume:spare+lun:0&sort=lun":      " 1",
		"/mappings?search=readonly:no+volume:win":           " 0",
		"/users?search=role:viewer":                         "vera 1",
		"/users?sort=-name&limit=1":                         "vera 2",
		"/tokens?search=scope:read+ever:no&sort=expires":    "ci 1",
		"/tokens?search=expired:yes":                        " 0",
		"/events?search=machine:lab-01&limit=1":             " 2",
		"/events?search=severity:error":                     " 1",
		"/events?sort=-at&limit=2&offset=2":                 " 3",
		"/unknown-machines?search=maker:qemu&ignored=true":  " 1",
		"/unknown-machines?search=maker:intel&ignored=true": " 0",
	} {
		var out api.List[struct {
			Name string `json:"name"`
		}]
		h.must(200, "GET", "/api/v1"+path, "").json(t, &out)
		var names []string
		for _, item := range out.Items {
			if item.Name != "" {
				names = append(names, item.Name)
			}
		}
		if got := strings.Join(names, " ") + " " + string(rune('0'+out.Total)); got != want {
			t.Errorf("%s finds %q, want %q", path, got, want)
		}
	}
	for _, path := range []string{"/volumes?search=state:broken", "/volumes?sort=colour", "/profiles?search=kind:x", "/sessions?search=by:x", "/leases?search=state:x", "/media?sort=x", "/unknown-machines?search=ignored:x", "/jobs?search=state:x", "/loaders?search=supplied:x", "/attempts?search=outcome:x", "/audit?search=since:x", "/audit?sort=x", "/subnets?search=mode:x", "/mappings?search=boot:x", "/users?search=role:x", "/tokens?sort=x", "/events?search=severity:x", "/events?sort=x"} {
		if a := h.must(422, "GET", "/api/v1"+path, ""); !strings.Contains(string(a.body), "by") && !strings.Contains(string(a.body), "there are: ") && !strings.Contains(string(a.body), "is no time") {
			t.Errorf("%s: %s", path, a.body)
		}
	}
}

func TestEveryListIsExported(t *testing.T) {
	h := open(t)
	for _, v := range []string{`"name":"win11","size":1048576`, `"name":"spare","size":2097152`} {
		h.must(201, "POST", "/api/v1/volumes", "{"+v+"}")
	}
	h.must(204, "PUT", "/api/v1/unknown-machines/52:54:00:12:34:56/ignored", `{"ignored":true}`)
	h.must(201, "POST", "/api/v1/machines", `{"name":"lab-01","macs":["00:07:e9:0f:ea:01"]}`)
	h.must(201, "POST", "/api/v1/mappings", `{"machine":"lab-01","volume":"spare"}`)
	h.must(201, "POST", "/api/v1/subnets", `{"interface":"eth1","prefix":"10.77.0.0/24","mode":"full"}`)
	h.must(201, "POST", "/api/v1/users", `{"name":"anna","role":"admin","password":"a long password"}`)
	h.must(201, "POST", "/api/v1/tokens", `{"name":"ci","scope":"read"}`)
	h.happen(store.Event{Kind: store.EventDHCPDiscover, Machine: 1}, store.Event{Kind: store.EventISCSINoLUN, Machine: 1, Detail: store.Detail{Key: "aWhisper"}})
	for path, want := range map[string][]string{
		"/exports/volumes?sort=-size":                                 {"id,name,kind,size,takes,", ",spare,raw,2097152,", ",win11,raw,"},
		"/exports/volumes?search=win11&format=json":                   {`"name": "win11"`, `"size": 1048576`},
		"/exports/unknown-machines":                                   {"mac,maker,", "52:54:00:12:34:56,QEMU virtual machine,"},
		"/exports/machines?search=state:never&format=json":            {`"name": "lab-01"`, `"macs": "00:07:e9:0f:ea:01"`},
		"/exports/machines?sort=-name":                                {"name,macs,", "lab-01,00:07:e9:0f:ea:01"},
		"/exports/sessions":                                           {"id,machine,", "s1,"},
		"/exports/leases":                                             {"address,mac,"},
		"/exports/jobs?format=json":                                   {"[\n]\n"},
		"/exports/profiles?search=kind:local":                         {"name,kind,fields,builtin", "local,local,,true"},
		"/exports/media?format=json":                                  {"[\n]\n"},
		"/exports/loaders":                                            {"name,chain,", "UEFI,x86-64,,iSCSI,"},
		"/exports/subnets?search=mode:full":                           {"id,network,interface,", "1,10.77.0.0/24,eth1,full,,0,0,"},
		"/exports/mappings":                                           {"machine,lun,", "lab-01,0,spare,2097152,true,false,"},
		"/exports/users?format=json":                                  {`"name": "anna"`, `"role": "admin"`},
		"/exports/tokens":                                             {"id,name,owner,scope,expired,", ",ci,,read,false,"},
		"/exports/events?search=machine:lab-01&sort=-at":              {"seq,at,severity,kind,machine,", ",info,dhcp.discover,lab-01,", ",error,iscsi.no-lun,lab-01,"},
		"/exports/attempts":                                           {"id,machine,mac,started,"},
		"/exports/audit?search=what:volume+spare&format=csv&sort=who": {"id,at,who,", ",tester,volume.create,spare,"},
	} {
		a := h.must(200, "GET", "/api/v1"+path, "")
		at := 0
		for _, w := range want {
			i := strings.Index(string(a.body[at:]), w)
			if i < 0 {
				t.Errorf("%s lacks %q:\n%s", path, w, a.body)
				break
			}
			at += i
		}
		if json := strings.Contains(path, "json"); json != (a.kind == "application/json") || !json && a.kind != "text/csv; charset=utf-8" {
			t.Errorf("%s is %s", path, a.kind)
		}
	}
	if a := h.must(200, "GET", "/api/v1/exports/volumes?search=win11", ""); strings.Contains(string(a.body), "spare") {
		t.Errorf("a search finds\n%s", a.body)
	}
	for _, path := range []string{"/exports/people", "/exports/volumes?format=xlsx", "/exports/volumes?search=state:x", "/exports/volumes?sort=colour", "/exports/attempts?search=outcome:x", "/exports/audit?search=since:x", "/exports/events?search=kind:xyz"} {
		h.must(422, "GET", "/api/v1"+path, "")
	}
	h.as = auth.Identity{Actor: "viewer", Scope: store.ScopeRead}
	h.must(200, "GET", "/api/v1/exports/leases", "")
	if a := h.must(200, "GET", "/api/v1/exports/events", ""); strings.Contains(string(a.body), "aWhisper") {
		t.Errorf("a key leaves with the table:\n%s", a.body)
	}
	for _, list := range []string{"users", "tokens"} {
		if a := h.must(403, "GET", "/api/v1/exports/"+list, ""); a.kind != "application/problem+json" || !strings.Contains(string(a.body), "needs the scope admin") {
			t.Errorf("%s: %s", list, a.body)
		}
	}
	h.as = auth.Identity{}
	h.must(401, "GET", "/api/v1/exports/leases", "")
}
