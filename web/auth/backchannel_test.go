package auth_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"lunboot/store"
)

// inSession is somebody with the provider's name of their session.
func inSession(subject, sid string) store.OIDCPerson {
	p := vouched(subject, "anna", store.RoleOperator)
	p.Session = sid
	return p
}

func TestWhoLoggedOutAtTheProviderIsOutHere(t *testing.T) {
	d := openDoor(t)
	desk, phone, ben, admin := browser(t), browser(t), browser(t), browser(t)
	login(t, admin, d.srv.URL, password)
	d.come(t, desk, inSession("1", "s-1"))
	d.come(t, phone, inSession("1", "s-2"))
	d.come(t, ben, inSession("2", "s-3"))
	end := func(subject, sid string) {
		t.Helper()
		if err := d.EndFrom(t.Context(), store.OIDCPerson{Issuer: issuer, Subject: subject, Session: sid}); err != nil {
			t.Fatal(err)
		}
	}
	are := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, c := range []*http.Client{desk, phone, ben, admin} {
			got = append(got, get(t, c, d.srv.URL+"/page"))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for _, p := range []store.OIDCPerson{
		{Issuer: issuer, Subject: "9"}, {Issuer: issuer, Session: "s-9"}, {Issuer: issuer, Subject: "2", Session: "s-1"},
		{Issuer: "https://another.example.org", Subject: "1"}, {Issuer: "https://another.example.org", Session: "s-1"},
	} {
		if err := d.EndFrom(t.Context(), p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
		are("who is not logged in so", "anna/operate", "anna/operate", "anna-2/operate", "admin/admin")
	}
	end("1", "s-1")
	are("one session of hers", nobody, "anna/operate", "anna-2/operate", "admin/admin")
	end("", "s-2")
	are("one session, of nobody who is named", nobody, nobody, "anna-2/operate", "admin/admin")
	d.clk.add(time.Hour)
	d.come(t, desk, inSession("1", "s-4"))
	d.come(t, phone, inSession("1", "")) // the provider gave this one no name
	end("1", "")
	are("all of hers", nobody, nobody, "anna-2/operate", "admin/admin")
	d.clk.add(time.Hour)
	d.come(t, desk, inSession("1", "s-5"))
	d.come(t, phone, inSession("1", ""))
	end("1", "s-6")
	are("a session that may be the one without a name", "anna/operate", nobody, "anna-2/operate", "admin/admin")
	if got := d.audit(t, "user"); !slices.Contains(got, "OpenID Connect user.logout anna: they logged out at "+issuer) {
		t.Errorf("it says\n%s", strings.Join(got, "\n"))
	}
}

// What runs for a login ends with it: a page that is open shows nothing more.
func TestWhatRunsEndsWithTheLogoutAtTheProvider(t *testing.T) {
	d := openDoor(t)
	c := browser(t)
	d.come(t, c, inSession("1", "s-1"))
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	srv := httptest.NewServer(d.API(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- r.Context().Err()
	})))
	t.Cleanup(srv.Close)
	for _, k := range cookies(t, c, d.srv.URL) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(k)
		go func() {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}()
	}
	<-begun
	if err := d.EndFrom(t.Context(), store.OIDCPerson{Issuer: issuer, Session: "s-1"}); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// A sign-in that was under way when somebody logged out brings them in no more.
func TestALogoutOvertakesASignIn(t *testing.T) {
	d := openDoor(t)
	for _, out := range []store.OIDCPerson{{Issuer: issuer, Subject: "1"}, {Issuer: issuer, Session: "s-1"}} {
		c, who := browser(t), inSession("1", "s-1")
		who.Began = d.clk.now()
		d.clk.add(time.Second)
		if err := d.EndFrom(t.Context(), out); err != nil {
			t.Fatal(err)
		}
		if said := d.come(t, c, who); !strings.Contains(said, "Start the sign-in again") {
			t.Errorf("after %+v she is told %q", out, said)
		}
		d.is(t, c, nobody)
		d.clk.add(time.Second)
		who.Began, who.Session = d.clk.now(), "s-2"
		if said := d.come(t, c, who); said != "" {
			t.Errorf("the next one: %s", said)
		}
		d.is(t, c, "anna/operate")
	}
}

// So does one of a session, if it may be the one that the sign-in is of; and of no other.
func TestALogoutOfASessionOvertakesASignInWithoutAName(t *testing.T) {
	d := openDoor(t)
	for who, want := range map[string]string{"": nobody, "s-2": "anna/operate"} {
		c, p := browser(t), inSession("1", who)
		p.Began = d.clk.now()
		d.clk.add(time.Second)
		if err := d.EndFrom(t.Context(), store.OIDCPerson{Issuer: issuer, Subject: "1", Session: "s-1"}); err != nil {
			t.Fatal(err)
		}
		d.come(t, c, p)
		d.is(t, c, want)
	}
}
