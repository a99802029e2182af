package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"lunboot/store"
)

func profileLife(k *kit) {
	ctx := k.Context()
	built := must(k.Profiles(ctx))(k)
	if len(built) != 2 || built[0].Name != "local" || built[0].Kind != store.ProfileLocal || built[1].Name != "san" || built[1].Kind != store.ProfileSAN || !built[0].BuiltIn || !built[1].BuiltIn {
		k.Fatalf("built in: %+v", built)
	}
	in := store.Profile{Name: "rescue", Kind: store.ProfileKernel, Fields: map[string]string{"kernel": "vmlinuz", "cmdline": "root=/dev/ram password=hunter2"}}
	made := must(k.PutProfile(ctx, actor, in))(k)
	in.ID, in.Revision = made.ID, 1
	same(k, "the profile as made", in, made)
	k.reopen()
	same(k, "the profile as read", made, must(k.Profile(ctx, "rescue"))(k))
	k.unchanged(func() { must(k.PutProfile(ctx, actor, made))(k) })
	made.Kind, made.Fields, made.Text = store.ProfileCustom, nil, "#!ipxe\nshell\n"
	made = must(k.PutProfile(ctx, actor, made))(k)
	if made.Revision != 2 {
		k.Errorf("revision %d after one change", made.Revision)
	}
	same(k, "the profile as changed", made, must(k.Profile(ctx, "rescue"))(k))

	m := newMachine(1)
	m.Profile = "rescue"
	m = must(k.CreateMachine(ctx, actor, m))(k)
	k.unchanged(func() {
		k.refused(k.DeleteProfile(ctx, actor, "rescue"), store.KindInUse, "", m.Name)
		k.refused(k.DeleteProfile(ctx, actor, "san"), store.KindDenied, "")
		k.refused(k.DeleteProfile(ctx, actor, "none-such"), store.KindNotFound, "")
		_, err := k.PutProfile(ctx, actor, store.Profile{Name: "san", Kind: store.ProfileLocal})
		k.refused(err, store.KindDenied, "")
		_, err = k.PutProfile(ctx, actor, store.Profile{Name: "x", Kind: "odd"})
		k.refused(err, store.KindInvalid, "kind")
		_, err = k.PutProfile(ctx, actor, store.Profile{Name: "x", Kind: store.ProfileCustom})
		k.refused(err, store.KindInvalid, "text")
		stale := made
		stale.Revision, stale.Text = 1, "other"
		_, err = k.PutProfile(ctx, actor, stale)
		k.refused(err, store.KindConflict, "revision", "rescue")
		stale.Name = "gone"
		_, err = k.PutProfile(ctx, actor, stale)
		k.refused(err, store.KindConflict, "revision", "gone")
		_, err = k.Profile(ctx, "none-such")
		k.refused(err, store.KindNotFound, "")
	})
	m.Profile, m.OnceProfile = "san", "rescue"
	m = must(k.UpdateMachine(ctx, actor, m))(k)
	k.unchanged(func() { k.refused(k.DeleteProfile(ctx, actor, "rescue"), store.KindInUse, "", m.Name) })
	must(k.ConsumeOnce(ctx, m.ID, "rescue", m.Updated))(k)
	must(k.PutProfile(ctx, actor, store.Profile{Name: "bench", Kind: store.ProfileMenu, Fields: map[string]string{"items": "san\nrescue"}}))(k)
	k.unchanged(func() { k.refused(k.DeleteProfile(ctx, actor, "rescue"), store.KindInUse, "", "bench") })
	k.ok(k.DeleteProfile(ctx, actor, "bench"))
	k.ok(k.DeleteProfile(ctx, actor, "rescue"))
	same(k, "what is left", built, must(k.Profiles(ctx))(k))
	log, _, err := k.Audit(ctx, store.Page{})
	k.ok(err)
	if strings.Contains(fmt.Sprint(log), "hunter2") {
		k.Error("the audit log repeats a kernel's command line")
	}
}

func settingLife(k *kit) {
	ctx := k.Context()
	if v, ok, err := k.Setting(ctx, "target"); v != "" || ok || err != nil {
		k.Errorf("a setting that was never set: %q, %v, %v", v, ok, err)
	}
	k.ok(k.PutSetting(ctx, actor, "target", "iqn.2026-11.lab:appliance"))
	k.ok(k.PutSetting(ctx, actor, "empty", ""))
	k.reopen()
	if v, ok, err := k.Setting(ctx, "target"); v != "iqn.2026-11.lab:appliance" || !ok || err != nil {
		k.Errorf("after a restart: %q, %v, %v", v, ok, err)
	}
	if v, ok, err := k.Setting(ctx, "empty"); v != "" || !ok || err != nil {
		k.Errorf("set to nothing: %q, %v, %v", v, ok, err)
	}
	k.unchanged(func() {
		k.ok(k.PutSetting(ctx, actor, "target", "iqn.2026-11.lab:appliance"))
		k.refused(k.PutSetting(ctx, actor, "", "x"), store.KindInvalid, "key")
	})
}

func jobLife(k *kit) {
	ctx := k.Context()
	j := must(k.CreateJob(ctx, store.Job{Kind: "volume.import", Subject: "vol-01", Total: 100}))(k)
	if j.ID == 0 || j.State != store.JobRunning || j.Started.IsZero() {
		k.Errorf("a new job: %+v", j)
	}
	same(k, "the job as read", j, must(k.Job(ctx, j.ID))(k))
	j.Verdicts = []store.JobVerdict{{Machine: 7, Name: "lab-07", Result: store.ResultFailed, Detail: "the disk is full"}}
	j.Done, j.State, j.Error, j.Finished = 60, store.JobFailed, "the disk is full", time.Now().Round(0).UTC()
	k.ok(k.UpdateJob(ctx, j))
	k.reopen()
	j.Counts = map[store.JobResult]int{store.ResultFailed: 1}
	same(k, "the job after a restart", j, must(k.Job(ctx, j.ID))(k))
	second := must(k.CreateJob(ctx, store.Job{Kind: "volume.import"}))(k)
	many := must(k.CreateJob(ctx, store.Job{Kind: store.JobClones, Verdicts: []store.JobVerdict{
		{Machine: 7, Name: "lab-07", Result: store.ResultDone}, {Machine: 8, Name: "lab-08", Result: store.ResultFailed, Detail: "the disk is full"}, {Machine: 9, Name: "lab-09", Result: store.ResultDone}}}))(k)
	if len(many.Verdicts) != 3 || many.Counts[store.ResultDone] != 2 || many.Counts[store.ResultFailed] != 1 {
		k.Errorf("a new job on three machines: %+v", many)
	}
	same(k, "the job on three machines", many, must(k.Job(ctx, many.ID))(k))
	// In the list of all, which would be megabytes, verdicts are counted.
	many.Verdicts, j.Verdicts = nil, nil
	same(k, "all jobs", []store.Job{many, second, j}, must(k.Jobs(ctx))(k))
	k.unchanged(func() {
		_, err := k.CreateJob(ctx, store.Job{})
		k.refused(err, store.KindInvalid, "kind")
		_, err = k.CreateJob(ctx, store.Job{Kind: "x", State: "odd"})
		k.refused(err, store.KindInvalid, "state")
		k.refused(k.UpdateJob(ctx, store.Job{ID: 4711, Kind: "x", State: store.JobDone}), store.KindNotFound, "")
		k.refused(k.UpdateJob(ctx, store.Job{ID: j.ID, Kind: "x"}), store.KindInvalid, "state")
		_, err = k.Job(ctx, 4711)
		k.refused(err, store.KindNotFound, "")
	})
}

func userLife(k *kit) {
	ctx := k.Context()
	if us := must(k.Users(ctx))(k); len(us) > 0 {
		k.Errorf("users at first: %v", us)
	}
	_, err := k.User(ctx, "anna")
	k.refused(err, store.KindNotFound, "")
	_, err = k.CreateUser(ctx, actor, store.User{Name: "anna", Role: store.RoleViewer, Hash: "h"})
	k.refused(err, store.KindConflict, "role")
	anna := must(k.CreateUser(ctx, actor, store.User{Name: "anna", Role: store.RoleAdmin, Hash: "hash-1"}))(k)
	ben := must(k.CreateUser(ctx, actor, store.User{Name: "ben", Role: store.RoleViewer, Hash: "hash-2"}))(k)
	ben.Role, ben.Hash = store.RoleOperator, "hash-3"
	was := ben.Revision
	ben = must(k.UpdateUser(ctx, "anna", ben))(k)
	if ben.Revision != was+1 {
		k.Errorf("revision %d after %d", ben.Revision, was)
	}
	log, _, err := k.Audit(ctx, store.Page{Limit: 1})
	k.ok(err)
	if a := log[0]; a.Actor != "anna" || a.Action != "user.update" || a.Subject != "ben" || !strings.Contains(a.Detail, "role viewer → operator") || strings.Contains(fmt.Sprint(a), "hash-") {
		k.Errorf("the audit log says %+v", a)
	}
	at := time.Now().Round(0).UTC()
	k.ok(k.NoteLogin(ctx, "ben", at))
	ben.LastLogin = at
	k.reopen()
	same(k, "all users", []store.User{anna, ben}, must(k.Users(ctx))(k))
	same(k, "one user", ben, must(k.User(ctx, "ben"))(k))
	k.unchanged(func() {
		for field, u := range map[string]store.User{
			"name": {Role: store.RoleViewer, Hash: "h"}, "password": {Name: "carl", Role: store.RoleViewer}, "role": {Name: "carl", Role: "owner", Hash: "h"},
		} {
			_, err := k.CreateUser(ctx, actor, u)
			k.refused(err, store.KindInvalid, field)
		}
		_, err := k.CreateUser(ctx, actor, store.User{Name: string(store.ActorSystem), Role: store.RoleViewer, Hash: "h"})
		k.refused(err, store.KindInvalid, "name")
		_, err = k.CreateUser(ctx, actor, store.User{Name: "ben", Role: store.RoleViewer, Hash: "h"})
		k.refused(err, store.KindConflict, "name", "ben")
		stale := ben
		stale.Revision, stale.Role = 1, store.RoleViewer
		_, err = k.UpdateUser(ctx, actor, stale)
		k.refused(err, store.KindConflict, "revision", "ben")
		k.refused(k.DeleteUser(ctx, actor, "ben", 1), store.KindConflict, "revision", "ben")
		last := anna
		last.Role = store.RoleOperator
		_, err = k.UpdateUser(ctx, actor, last)
		k.refused(err, store.KindConflict, "role", "anna")
		k.refused(k.DeleteUser(ctx, actor, "anna", 0), store.KindConflict, "role", "anna")
		k.refused(k.DeleteUser(ctx, actor, "nobody", 0), store.KindNotFound, "")
		k.ok(k.NoteLogin(ctx, "ben", at.Add(-time.Hour)))
	})
	ben.Role = store.RoleAdmin
	must(k.UpdateUser(ctx, actor, ben))(k)
	k.ok(k.DeleteUser(ctx, "ben", "anna", 0))
	if us := must(k.Users(ctx))(k); len(us) != 1 || us[0].Name != "ben" {
		k.Errorf("left are %+v", us)
	}
}

// words is a search without qualifiers.
func words(w ...string) store.Search { return store.Search{Words: w} }

func auditSearch(k *kit) {
	ctx := k.Context()
	m, v := k.machine(1), k.volume(1)
	k.mapping(m, v, 0)
	before := time.Now()
	m.Notes = "100% sure"
	must(k.UpdateMachine(ctx, "somebody else", m))(k)
	k.ok(k.PutSetting(ctx, actor, string(store.SettingCapture), "off"))
	for what, c := range map[string]struct {
		f    store.AuditFilter
		want []string
	}{
		"an actor":             {store.AuditFilter{Actor: "somebody else"}, []string{"machine.update"}},
		"a noun":               {store.AuditFilter{Noun: "machine"}, []string{"machine.update", "machine.create"}},
		"no wild card":         {store.AuditFilter{Noun: "m%"}, nil},
		"nor in a search":      {store.AuditFilter{Search: words("%")}, nil},
		"a subject":            {store.AuditFilter{Subject: m.Name}, []string{"machine.update", "mapping.create", "machine.create"}},
		"a part of any text":   {store.AuditFilter{Search: words(v.Name)}, []string{"mapping.create", "volume.create"}},
		"both":                 {store.AuditFilter{Search: words(v.Name), Noun: "volume"}, []string{"volume.create"}},
		"since a time":         {store.AuditFilter{Since: before}, []string{"setting.put", "machine.update"}},
		"until a time":         {store.AuditFilter{Until: before, Noun: "machine"}, []string{"machine.create"}},
		"a page":               {store.AuditFilter{Page: store.Page{Limit: 1, Offset: 1}}, []string{"machine.update"}},
		"words in any order":   {store.AuditFilter{Search: words("somebody", m.Name)}, []string{"machine.update"}},
		"qualifiers":           {store.AuditFilter{Search: store.Search{Terms: []store.Term{{Key: "who", Value: "BODY"}, {Key: "what", Value: "machine"}, {Key: "subject", Value: m.Name[:2]}}}}, []string{"machine.update"}},
		"the oldest first":     {store.AuditFilter{Noun: "machine", Sort: "-at"}, []string{"machine.create", "machine.update"}},
		"by what it was":       {store.AuditFilter{Sort: "what"}, []string{"machine.create", "machine.update", "mapping.create", "setting.put", "volume.create"}},
		"by who, falling":      {store.AuditFilter{Sort: "-who", Noun: "machine"}, []string{"machine.create", "machine.update"}},
		"a setting, and which": {store.AuditFilter{Search: words("off")}, []string{"setting.put"}},
	} {
		rows, total, err := k.AuditLog(ctx, c.f)
		k.ok(err)
		var got []string
		for _, r := range rows {
			got = append(got, r.Action)
		}
		same(k, what, c.want, got)
		if c.f.Limit > 0 {
			continue
		}
		if total != len(rows) {
			k.Errorf("%s: a total of %d for %d rows", what, total, len(rows))
		}
		next := must(k.EveryChange(ctx, c.f))(k)
		same(k, what+", in parts", rows, append([]store.Audit{}, must(next(ctx))(k)...))
		same(k, what+", after the last part", 0, len(must(next(ctx))(k)))
	}
	_, _, err := k.AuditLog(ctx, store.AuditFilter{Sort: "colour"})
	k.refused(err, store.KindInvalid, "sort", "colour")
	_, err = k.EveryChange(ctx, store.AuditFilter{Sort: "colour"})
	k.refused(err, store.KindInvalid, "sort", "colour")
	same(k, "who changed something", []store.Actor{"somebody else", actor}, must(k.Auditors(ctx))(k))
}

func tokenLife(k *kit) {
	ctx := k.Context()
	in := store.Token{Name: "ci runner", Hash: "h1", Scope: "operate", Expires: time.Now().Add(time.Hour).Round(0).UTC()}
	made := must(k.CreateToken(ctx, actor, in))(k)
	in.ID, in.Created = made.ID, made.Created
	same(k, "the token as made", in, made)
	second := must(k.CreateToken(ctx, actor, store.Token{Name: "backup", Hash: "h2", Scope: "admin"}))(k)
	at := time.Now().Round(0).UTC()
	k.ok(k.TouchToken(ctx, made.ID, at))
	made.LastUsed = at
	k.reopen()
	same(k, "the token by its hash", made, must(k.TokenByHash(ctx, "h1"))(k))
	same(k, "all tokens", []store.Token{second, made}, must(k.Tokens(ctx))(k))
	k.unchanged(func() {
		_, err := k.CreateToken(ctx, actor, store.Token{Name: "ci runner", Hash: "h3", Scope: "read"})
		k.refused(err, store.KindConflict, "name", "ci runner")
		_, err = k.CreateToken(ctx, actor, store.Token{Name: "other", Hash: "h3", Scope: "everything"})
		k.refused(err, store.KindInvalid, "scope")
		_, err = k.CreateToken(ctx, actor, store.Token{Name: "other", Scope: "read"})
		k.refused(err, store.KindInvalid, "hash")
		_, err = k.TokenByHash(ctx, "a-guess-at-a-hash")
		k.refused(err, store.KindNotFound, "")
		if strings.Contains(err.Error(), "a-guess") {
			k.Errorf("the error repeats what was looked for: %v", err)
		}
		k.refused(k.DeleteToken(ctx, actor, 4711), store.KindNotFound, "")
		k.refused(k.TouchToken(ctx, 4711, at), store.KindNotFound, "")
	})
	k.ok(k.DeleteToken(ctx, actor, made.ID))
	if _, err := k.TokenByHash(ctx, "h1"); !store.IsNotFound(err) {
		k.Errorf("a revoked token is found: %v", err)
	}
	// Whose it is, is whoever has the name when it is made, and stays when they go.
	anna := must(k.CreateUser(ctx, actor, store.User{Name: "anna", Role: store.RoleAdmin, Hash: "hash-1"}))(k)
	must(k.CreateUser(ctx, actor, store.User{Name: "ben", Role: store.RoleAdmin, Hash: "hash-2"}))(k)
	annas := must(k.CreateToken(ctx, actor, store.Token{Name: "annas", Hash: "h4", Scope: "read", Owner: "anna", OwnerSince: at}))(k)
	if annas.Owner != "anna" || !annas.OwnerSince.Equal(anna.Created) {
		k.Errorf("a token of anna's is made as %+v", annas)
	}
	k.ok(k.DeleteUser(ctx, actor, "anna", 0))
	k.reopen()
	same(k, "the token of somebody who was removed", annas, must(k.TokenByHash(ctx, "h4"))(k))
	k.unchanged(func() {
		_, err := k.CreateToken(ctx, actor, store.Token{Name: "other", Hash: "h5", Scope: "read", Owner: "anna"})
		k.refused(err, store.KindNotFound, "", "anna")
	})
	log, _, err := k.Audit(ctx, store.Page{Limit: 2})
	k.ok(err)
	if !strings.Contains(log[1].Detail, "scope read, of anna") {
		k.Errorf("the audit log says %+v", log)
	}
}

func webSessionLife(k *kit) {
	ctx := k.Context()
	find := func(token, want string) {
		k.Helper()
		b, found, err := k.FindCtx(ctx, token)
		if err != nil || found != (want != "") || string(b) != want {
			k.Errorf("%s: %q, %v, %v; want %q", token, b, found, err, want)
		}
	}
	hour := time.Now().Add(time.Hour)
	k.ok(k.CommitCtx(ctx, "t1", []byte("one"), hour))
	k.ok(k.CommitCtx(ctx, "t1", []byte("two"), hour))
	k.ok(k.CommitCtx(ctx, "t2", []byte("old"), time.Now().Add(-time.Second)))
	k.reopen()
	find("t1", "two")
	find("t2", "")
	find("t3", "")
	revision := k.Revision()
	k.ok(k.DeleteCtx(ctx, "t1"))
	k.ok(k.DeleteCtx(ctx, "t1"))
	find("t1", "")
	// A request that was under way when it ended writes it once more.
	k.ok(k.CommitCtx(ctx, "t1", []byte("again"), hour))
	find("t1", "")
	k.ok(k.CommitCtx(ctx, "t4", []byte("four"), hour))
	if ws := must(k.WebSessions(ctx))(k); len(ws) != 1 || ws[0].Token != "t4" || string(ws[0].Data) != "four" || ws[0].Expires.Sub(hour).Abs() > time.Second {
		k.Errorf("the web sessions are %+v", ws)
	}
	if k.Revision() != revision {
		k.Error("a web session is no change of the inventory")
	}
}

func survivesRestart(k *kit) {
	ctx := k.Context()
	m := must(k.CreateMachine(ctx, actor, fullMachine(k)))(k)
	k.mapping(m, k.volume(1), 0)
	must(k.PutSubnet(ctx, actor, newSubnet()))(k)
	k.ok(k.PutLease(ctx, bound(1, "192.168.40.100")))
	k.ok(k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(99), Hostname: "who"}))
	must(k.PutProfile(ctx, actor, store.Profile{Name: "p", Kind: store.ProfileCustom, Text: "#!ipxe"}))(k)
	must(k.CreateJob(ctx, store.Job{Kind: "volume.import"}))(k)
	must(k.CreateToken(ctx, actor, store.Token{Name: "t", Hash: "h", Scope: "read"}))(k)
	before := k.dump()[2:] // the revisions count the commits of one run
	k.reopen()
	same(k, "the inventory", before, k.dump()[2:])
	k.reopen()
	same(k, "the inventory", before, k.dump()[2:])
}

func manyWriters(k *kit) {
	ctx := k.Context()
	v := k.volume(1)
	const writers = 16
	var machines []store.Machine
	for n := range writers {
		machines = append(machines, k.machine(n+1))
	}
	revision, maps := k.Revision(), k.MapRevision()
	var wg sync.WaitGroup
	wins := make(chan int, 4*writers)
	for n, m := range machines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			// All want the one writable volume, and all the one address.
			if _, err := k.CreateMapping(ctx, actor, store.Mapping{Machine: m.ID, Volume: v.ID}); err == nil {
				wins <- 1
			} else if store.KindOf(err) != store.KindConflict {
				k.Error(err)
			}
			m.Address = addr("192.168.40.5")
			if _, err := k.UpdateMachine(ctx, actor, m); err == nil {
				wins <- 2
			} else if store.KindOf(err) != store.KindConflict {
				k.Error(err)
			}
			if err := k.SeeUnknown(ctx, store.UnknownMachine{MAC: mac(1000)}); err != nil {
				k.Error(err)
			}
			if _, _, err := k.Machines(ctx, store.MachineFilter{Words: []string{"lab"}}); err != nil {
				k.Error(err)
			}
			_ = n
		}()
	}
	wg.Wait()
	close(wins)
	count := map[int]int{}
	for w := range wins {
		count[w]++
	}
	if count[1] != 1 || count[2] != 1 {
		k.Errorf("%d machines write the volume, %d have the address; one each was due", count[1], count[2])
	}
	if u := must(k.UnknownMachine(ctx, mac(1000)))(k); u.Count != writers {
		k.Errorf("seen %d times, counted %d", writers, u.Count)
	}
	if got := k.MapRevision() - maps; got != 2 {
		k.Errorf("two changes of mappings and machines moved the map revision by %d", got)
	}
	// Between one and all of the sights shared a commit.
	if got := k.Revision() - revision; got < 3 || got > 2+writers {
		k.Errorf("the revision moved by %d", got)
	}
}

func wakes(k *kit) {
	ctx := k.Context()
	start := k.Revision()
	all, maps := k.Changed(start), k.MapChanged(k.MapRevision())
	open := func(what string, c <-chan struct{}, want bool) {
		k.Helper()
		select {
		case <-c:
			if want {
				k.Errorf("%s: woken too early", what)
			}
		default:
			if !want {
				k.Errorf("%s: not woken", what)
			}
		}
	}
	open("everything", all, true)
	k.refused(k.DeleteMachine(ctx, actor, 4711), store.KindNotFound, "")
	open("everything, after a refusal", all, true)
	k.ok(k.PutLease(ctx, bound(1, "192.168.40.100")))
	open("everything, after a lease", all, false)
	open("mappings, after a lease", maps, true)
	served := k.NetworkChanged(k.NetworkRevision())
	open("networks, before a setting", served, true)
	k.ok(k.PutSetting(ctx, actor, "wakes", "yes"))
	open("networks, after a setting", served, false)
	open("mappings, after a setting", maps, true)
	if k.Revision() != start+2 {
		k.Errorf("the revision moved from %d to %d", start, k.Revision())
	}
	open("everything, asked too late", k.Changed(start), false)
	next := k.Changed(start + 2)
	served = k.NetworkChanged(k.NetworkRevision())
	k.machine(1)
	open("networks, after a machine", served, true)
	open("everything, after a machine", next, false)
	open("mappings, after a machine", maps, false)

	// A waiter that sleeps is woken, once a commit.
	woken := make(chan struct{})
	after := k.Revision()
	go func() {
		<-k.Changed(after)
		close(woken)
	}()
	k.volume(1)
	select {
	case <-woken:
	case <-time.After(10 * time.Second):
		k.Error("a waiter sleeps on")
	}
}

func canceledCaller(k *kit) {
	k.machine(1)
	ctx, cancel := context.WithCancel(k.Context())
	cancel()
	k.unchanged(func() {
		for what, err := range map[string]error{
			"a lease":   k.PutLease(ctx, bound(1, "192.168.40.100")),
			"a setting": k.PutSetting(ctx, actor, "key", "value"),
			"a machine": func() error { _, err := k.CreateMachine(ctx, actor, newMachine(2)); return err }(),
			"a look":    func() error { _, _, err := k.Machines(ctx, store.MachineFilter{}); return err }(),
		} {
			if !errors.Is(err, context.Canceled) {
				k.Errorf("%s of a canceled caller: %v", what, err)
			}
		}
	})
	// The inventory goes on for everybody else.
	k.ok(k.PutLease(k.Context(), bound(1, "192.168.40.100")))
	k.machine(2)
}

func closedInventory(k *kit) {
	ctx := k.Context()
	var wg sync.WaitGroup
	kept := make([]bool, 64)
	for n := range kept {
		wg.Add(1)
		go func() {
			defer wg.Done()
			kept[n] = k.PutLease(ctx, bound(n+1, fmt.Sprintf("10.0.0.%d", n+1))) == nil
		}()
	}
	k.ok(k.Close())
	wg.Wait()
	if err := k.PutLease(ctx, bound(1, "10.0.0.1")); store.KindOf(err) != store.KindUnavailable {
		k.Errorf("a lease after the end: %v", err)
	}
	k.Inventory = k.open(k.T)
	for n, ok := range kept {
		_, err := k.LeaseByMAC(ctx, mac(n+1))
		if ok && err != nil {
			k.Errorf("an accepted lease was lost: %v", err)
		}
	}
}
