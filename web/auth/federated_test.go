package auth_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lunboot/store"
	"lunboot/store/sqlite"
	"lunboot/web/auth"
)

const issuer = "https://sso.example.org"

// vouched is somebody whom the provider vouches for.
func vouched(subject, knownAs string, role store.Role) store.OIDCPerson {
	p := store.OIDCPerson{Issuer: issuer, Subject: subject, KnownAs: knownAs, Role: role}
	if role == "" {
		p.Refusal = "nothing gives a role"
	}
	return p
}

// door is a house with an admin, where whoever is put before it signs in.
type door struct {
	*auth.Auth
	dir string
	db  *sqlite.DB
	clk *clock
	srv *httptest.Server
	in  *httptest.Server
	mu  sync.Mutex
	who store.OIDCPerson
}

func openDoor(t *testing.T) *door {
	t.Helper()
	d := &door{clk: newClock(), dir: t.TempDir()}
	d.Auth, d.db = open(t, d.dir, d.clk)
	d.provider(t, issuer)
	if err := d.EndFederated(t.Context(), issuer); err != nil {
		t.Fatal(err)
	}
	if err := d.SetPassword(t.Context(), store.ActorSystem, "admin", password); err != nil {
		t.Fatal(err)
	}
	d.srv = site(t, d.Auth)
	d.in = httptest.NewServer(d.Pages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		who := d.who
		d.mu.Unlock()
		if err := d.SignIn(r.Context(), who); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
		}
	})))
	t.Cleanup(d.in.Close)
	return d
}

// provider sets the provider in the rows, and ends no login.
func (d *door) provider(t *testing.T, issuer string) {
	t.Helper()
	o := store.OIDC{Issuer: issuer, ClientID: "lunboot", URL: "https://lunboot.example.org", Default: store.RoleViewer}
	if _, err := d.db.PutOIDC(t.Context(), "admin", o); err != nil {
		t.Fatal(err)
	}
}

// come signs somebody in, and returns what they are told when they may not.
func (d *door) come(t *testing.T, c *http.Client, who store.OIDCPerson) string {
	t.Helper()
	d.mu.Lock()
	d.who = who
	d.mu.Unlock()
	resp, err := c.Get(d.in.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || (resp.StatusCode == http.StatusOK) != (len(b) == 0) {
		t.Fatalf("%d %s %v", resp.StatusCode, b, err)
	}
	return string(b)
}

func (d *door) is(t *testing.T, c *http.Client, want string) {
	t.Helper()
	for _, path := range []string{"/page", "/api/"} {
		if got := get(t, c, d.srv.URL+path); got != want {
			t.Errorf("on %s it is %q, want %q", path, got, want)
		}
	}
}

func (d *door) audit(t *testing.T, noun string) (lines []string) {
	t.Helper()
	rows, _, err := d.db.AuditLog(t.Context(), store.AuditFilter{Noun: noun})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range rows {
		lines = append(lines, string(a.Actor)+" "+a.Action+" "+a.Subject+": "+a.Detail)
	}
	return lines
}

func TestWhoComesThroughTheProviderIsThemselvesAndNobodyElse(t *testing.T) {
	d := openDoor(t)
	if err := addUser(t, d.Auth, "anna", store.RoleViewer); err != nil {
		t.Fatal(err)
	}
	c := browser(t)
	for _, p := range []struct {
		who  store.OIDCPerson
		name string
	}{
		{vouched("1", "anna", store.RoleOperator), "anna-2/operate"}, // the one with the password keeps her name
		{vouched("2", "Admin@example.org", store.RoleAdmin), "admin-2/admin"},
		{vouched("3", "anna", store.RoleViewer), "anna-3/read"},
		{vouched("4", "system", store.RoleViewer), "system-2/read"},
		{vouched("5", "Zoë van der Berg", store.RoleViewer), "zo--van-der-berg/read"},
		{vouched("6", "日本", store.RoleViewer), "person/read"},
		{vouched("7", strings.Repeat("x", 200), store.RoleViewer), strings.Repeat("x", 56) + "/read"},
		{vouched("8", "../../etc", store.RoleViewer), "etc/read"},
		{vouched("1", "Anna Smith", store.RoleOperator), "anna-2/operate"}, // a new name there is none here
		{store.OIDCPerson{Issuer: "https://another.example.org", Subject: "1", KnownAs: "anna", Role: store.RoleViewer}, "anna-4/read"},
	} {
		if err := d.EndFederated(t.Context(), p.who.Issuer); err != nil {
			t.Fatal(err)
		}
		if said := d.come(t, c, p.who); said != "" {
			t.Fatalf("%+v: %s", p.who, said)
		}
		d.is(t, c, p.name)
	}
	anna, err := d.User(t.Context(), "anna")
	if err != nil || anna.Role != store.RoleViewer || anna.Federated() || !auth.CheckPassword(anna.Hash, password) {
		t.Errorf("the one with the password is %+v, %v", anna, err)
	}
	for name, pw := range map[string]string{"anna-2": "", "admin-2": password} {
		if err := d.Login(t.Context(), name, pw); store.KindOf(err) != store.KindDenied {
			t.Errorf("%s logs in by a password: %v", name, err)
		}
	}
}

func TestTheAuditLogSaysWhoCameInAndHow(t *testing.T) {
	d := openDoor(t)
	c := browser(t)
	login(t, c, d.srv.URL, password)
	d.come(t, c, vouched("1", "anna", store.RoleOperator))
	d.come(t, c, vouched("1", "anna", store.RoleViewer))
	d.come(t, c, vouched("1", "anna", ""))
	login(t, c, d.srv.URL, "wrong")
	want := []string{
		"OpenID Connect user.refuse anna: nothing gives a role; their logins were ended",
		"OpenID Connect user.update anna: refused on",
		"anna user.login anna: by OpenID Connect (https://sso.example.org knows them as anna), from 127.0.0.1",
		"OpenID Connect user.update anna: role operator → viewer",
		"anna user.login anna: by OpenID Connect (https://sso.example.org knows them as anna), from 127.0.0.1",
		"OpenID Connect user.create anna: role operator; provider https://sso.example.org; subject 1; known as anna",
		"admin user.login admin: by password, from 127.0.0.1",
	}
	if got := d.audit(t, "user"); !slices.Equal(got[:len(want)], want) {
		t.Errorf("it says\n%s", strings.Join(got, "\n"))
	}
}

func TestTheRoleFollowsTheProviderAtEachSignIn(t *testing.T) {
	d := openDoor(t)
	one, two := browser(t), browser(t)
	d.come(t, one, vouched("1", "anna", store.RoleAdmin))
	d.is(t, one, "anna/admin")
	d.come(t, two, vouched("1", "anna", store.RoleViewer))
	d.is(t, one, "anna/read") // what runs follows too
	d.is(t, two, "anna/read")
	// The admin who goes is no last one: the one with the password stays.
	d.come(t, two, vouched("1", "anna", store.RoleAdmin))
	if _, err := d.SetUser(t.Context(), "anna", "admin", store.UserPatch{Role: new(store.RoleViewer)}); store.KindOf(err) != store.KindConflict {
		t.Errorf("the last admin with a password: %v", err)
	}
	if said := d.come(t, two, vouched("1", "anna", "")); !strings.Contains(said, "nothing gives a role") {
		t.Errorf("without a role she is told %q", said)
	}
	d.is(t, one, nobody)
	d.is(t, two, nobody)
	if said := d.come(t, browser(t), vouched("2", "ben", "")); !strings.Contains(said, "nothing gives a role") {
		t.Errorf("who never was here is told %q", said)
	}
	if _, err := d.User(t.Context(), "ben"); !store.IsNotFound(err) {
		t.Errorf("who was refused is kept: %v", err)
	}
	if _, err := d.SetUser(t.Context(), "admin", "anna", store.UserPatch{Role: new(store.RoleOperator)}); store.KindOf(err) != store.KindConflict {
		t.Errorf("a role by hand: %v", err)
	}
	if err := d.SetPassword(t.Context(), "admin", "anna", password); store.KindOf(err) != store.KindConflict {
		t.Errorf("a password by hand: %v", err)
	}
	if err := d.ChangePassword(t.Context(), "anna", "", password); store.KindOf(err) != store.KindDenied {
		t.Errorf("a password by herself: %v", err)
	}
}

func TestWhoIsShutOutIsOutAtOnceAndStaysOut(t *testing.T) {
	d := openDoor(t)
	if err := addUser(t, d.Auth, "vera", store.RoleViewer); err != nil {
		t.Fatal(err)
	}
	anna, vera := browser(t), browser(t)
	d.come(t, anna, vouched("1", "anna", store.RoleAdmin))
	loginAs(t, vera, d.srv.URL, "vera")
	kept := cookies(t, anna, d.srv.URL)
	for name, c := range map[string]*http.Client{"anna": anna, "vera": vera} {
		if _, err := d.SetUser(t.Context(), "admin", name, store.UserPatch{Disabled: new(true)}); err != nil {
			t.Fatal(err)
		}
		d.is(t, c, nobody)
		if all, err := d.Logins(t.Context(), name); err != nil || len(all) != 0 {
			t.Errorf("%s has the logins %v, %v", name, all, err)
		}
	}
	if said := d.come(t, anna, vouched("1", "anna", store.RoleAdmin)); !strings.Contains(said, "anna is shut out: an admin did that") {
		t.Errorf("anna is told %q", said)
	}
	if err := d.Login(t.Context(), "vera", password); store.KindOf(err) != store.KindDenied || !strings.Contains(err.Error(), "lunboot user set vera --no-disabled") {
		t.Errorf("vera is told %v", err)
	}
	// To whom does not know the password nothing is said of it.
	if err := d.Login(t.Context(), "vera", "wrong"); !strings.Contains(err.Error(), "do not fit") {
		t.Errorf("a stranger is told %v", err)
	}
	if _, err := d.SetUser(t.Context(), "admin", "anna", store.UserPatch{Disabled: new(false)}); err != nil {
		t.Fatal(err)
	}
	if got := withCookies(t, d.srv.URL+"/page", kept); got != nobody {
		t.Errorf("the login from before is good again: %q", got)
	}
	if said := d.come(t, anna, vouched("1", "anna", store.RoleAdmin)); said != "" {
		t.Errorf("let in again she is told %q", said)
	}
	d.is(t, anna, "anna/admin")
	if _, err := d.SetUser(t.Context(), "admin", "admin", store.UserPatch{Disabled: new(true)}); store.KindOf(err) != store.KindConflict {
		t.Errorf("the last admin with a password shuts themselves out: %v", err)
	}
}

func TestALoginThroughTheProviderEnds(t *testing.T) {
	t.Run("after half a day", func(t *testing.T) {
		d := openDoor(t)
		c := browser(t)
		d.come(t, c, vouched("1", "anna", store.RoleAdmin))
		all, err := d.Logins(t.Context(), "anna")
		if err != nil || len(all) != 1 || all[0].Expires.Sub(d.clk.now()).Hours() > 12 {
			t.Errorf("it is listed as %+v, %v", all, err)
		}
		d.clk.add(12*time.Hour - time.Second)
		d.is(t, c, "anna/admin")
		d.clk.add(time.Second)
		d.is(t, c, nobody)
		if all, err := d.Logins(t.Context(), "anna"); err != nil || len(all) != 0 {
			t.Errorf("it is still listed as %+v, %v", all, err)
		}
		// Who logs in by a password in the same browser is in for as long as ever.
		login(t, c, d.srv.URL, password)
		d.clk.add(24 * time.Hour)
		d.is(t, c, loggedIn)
	})
	t.Run("with its removal, and is not the next one's of that name", func(t *testing.T) {
		d := openDoor(t)
		c := browser(t)
		d.come(t, c, vouched("1", "anna", store.RoleAdmin))
		if err := d.RemoveUser(t.Context(), "admin", "anna", 0); err != nil {
			t.Fatal(err)
		}
		d.is(t, c, nobody)
		if err := addUser(t, d.Auth, "anna", store.RoleAdmin); err != nil {
			t.Fatal(err)
		}
		d.is(t, c, nobody)
		if err := d.RemoveUser(t.Context(), "admin", "anna", 0); err != nil {
			t.Fatal(err)
		}
		d.come(t, browser(t), vouched("1", "anna", store.RoleAdmin))
		d.is(t, c, nobody)
	})
	t.Run("when the provider becomes another", func(t *testing.T) {
		d := openDoor(t)
		anna, admin := browser(t), browser(t)
		d.come(t, anna, vouched("1", "anna", store.RoleAdmin))
		login(t, admin, d.srv.URL, password)
		if err := d.EndFederated(t.Context(), issuer); err != nil {
			t.Fatal(err)
		}
		d.is(t, anna, "anna/admin")
		if err := d.EndFederated(t.Context(), "https://another.example.org"); err != nil {
			t.Fatal(err)
		}
		d.is(t, anna, nobody)
		d.is(t, admin, loggedIn)
		// Who was on the way in through the one before comes too late, in or out.
		for _, role := range []store.Role{store.RoleAdmin, ""} {
			if said := d.come(t, anna, vouched("1", "anna", role)); !strings.Contains(said, "an admin changed how people sign in") {
				t.Errorf("with the role %q she is told %q", role, said)
			}
		}
		d.is(t, anna, nobody)
	})
	t.Run("when the provider became another, and nothing ended it then", func(t *testing.T) {
		d := openDoor(t)
		anna := browser(t)
		d.come(t, anna, vouched("1", "anna", store.RoleAdmin))
		kept := cookies(t, anna, d.srv.URL)
		d.provider(t, "https://another.example.org") // and the appliance loses its power
		a, _ := open(t, d.dir, d.clk)
		srv := site(t, a)
		for _, path := range []string{"/page", "/api/"} {
			if got := withCookies(t, srv.URL+path, kept); got != nobody {
				t.Errorf("after the start, on %s: %q", path, got)
			}
		}
		d.provider(t, issuer)
		a, _ = open(t, d.dir, d.clk)
		if got := withCookies(t, site(t, a).URL+"/page", kept); got != "anna/admin" {
			t.Errorf("with the same provider: %q", got)
		}
	})
}

func TestNobodyComesThroughTheProviderBeforeTheFirstAdmin(t *testing.T) {
	a, db := open(t, t.TempDir(), newClock())
	if err := a.SignIn(t.Context(), vouched("1", "anna", store.RoleAdmin)); store.KindOf(err) != store.KindDenied || !strings.Contains(err.Error(), "not set up yet") {
		t.Errorf("%v", err)
	}
	if us, err := db.Users(t.Context()); err != nil || len(us) != 0 || a.Code() == "" {
		t.Errorf("%v, %v", us, err)
	}
}

// Two tabs of one browser come back at the same moment.
func TestWhoComesTwiceAtOnceIsOnePerson(t *testing.T) {
	d := openDoor(t)
	var wg sync.WaitGroup
	for range 6 {
		c := browser(t)
		wg.Go(func() {
			d.mu.Lock()
			d.who = vouched("1", "anna", store.RoleOperator)
			d.mu.Unlock()
			resp, err := c.Get(d.in.URL)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%v, %v", resp, err)
				return
			}
			resp.Body.Close()
		})
	}
	wg.Wait()
	us, err := d.Users(context.Background())
	if err != nil || len(us) != 2 {
		t.Errorf("%v, %v", us, err)
	}
}
