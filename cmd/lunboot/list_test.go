package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// people is a browser that is logged in on the pages, as the first admin.
func people(t testing.TB, a *testAppliance) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	code := regexp.MustCompile(`code=(\w{4}-\w{4})`).FindStringSubmatch(a.log.String())[1]
	answer, err := c.PostForm("http://"+a.Admin+"/setup", url.Values{"code": {code}, "password": {"correct horse battery"}})
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// worked is how long processors have worked for this process: what a request costs
// when others keep them busy, with what the client does of it.
func worked(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A lab of 2,000 machines, each with a clone to boot from and a boot behind it, looked
// at by a person and by a script: what a request takes by the clock, from its first
// byte to the answer's last, through the whole appliance on loopback.
func BenchmarkTheListOfTwoThousandMachines(b *testing.B) {
	const machines = 2000
	a := started(b, dataDir(b), "--script-guard", "off")
	mac := func(n int) string { return fmt.Sprintf("02:00:00:00:%02x:%02x", n>>8, n&0xff) }
	table := &bytes.Buffer{}
	fmt.Fprintln(table, "name,macs,tags")
	for k := range 10 {
		name := fmt.Sprintf("room-%d", k)
		a.must(b, "volume", "create", name, "--size", "16M")
		a.must(b, "volume", "freeze", name)
	}
	for n := range machines {
		fmt.Fprintf(table, "lab-%04d,%s,room %d\n", n, mac(n), n%10)
	}
	local := socketClient(a.dir)
	answer, err := local.Post("http://lunboot/api/v1/machines.csv", "text/csv", table)
	if err != nil {
		b.Fatal(err)
	}
	said, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(said), fmt.Sprintf(`"new":%d`, machines)) {
		b.Fatalf("%s %v %.300s", answer.Status, err, said)
	}
	local.Transport.(*http.Transport).DisableKeepAlives = false
	b.Cleanup(local.CloseIdleConnections)
	plain := &http.Client{}
	b.Cleanup(plain.CloseIdleConnections)
	for n := range machines {
		clone := fmt.Sprintf(`{"machine":"lab-%04d","reset_at_boot":true}`, n)
		for _, do := range []func() (*http.Response, error){
			func() (*http.Response, error) {
				return local.Post(fmt.Sprintf("http://lunboot/api/v1/volumes/room-%d/clone", n%10), "application/json", strings.NewReader(clone))
			},
			func() (*http.Response, error) {
				ask, err := http.NewRequest(http.MethodGet, "http://"+a.Boot+"/boot.ipxe?mac="+mac(n), nil)
				if err != nil {
					return nil, err
				}
				ask.Header.Set("User-Agent", "iPXE/1.21.1")
				return plain.Do(ask)
			},
		} {
			answer, err := do()
			if err != nil {
				b.Fatal(err)
			}
			said, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			if err != nil || answer.StatusCode >= 300 {
				b.Fatalf("%s %v %.300s", answer.Status, err, said)
			}
		}
	}
	browser := people(b, a)
	time.Sleep(10 * time.Second) // what the boots left to do is done: nobody waits for it here
	page, api := "http://"+a.Admin, "http://lunboot/api/v1"
	for _, what := range []struct {
		name  string
		by    *http.Client
		url   string
		holds string
	}{
		{"page", browser, page + "/machines", ">1–100 of 2000<"},
		{"page by attention", browser, page + "/machines?sort=attention", ">1–100 of 2000<"},
		{"page of a search", browser, page + "/machines?search=tag:%22room+3%22+lab", "lab-0003"},
		{"API, a page of 100", local, api + "/machines?limit=100&offset=1000", `"total":2000`},
		{"API, a search", local, api + "/machines?search=tag:%22room+3%22+lab", `"total":200`},
		{"API, all of them", local, api + "/machines?limit=0", `lab-1999`},
	} {
		b.Run(what.name, func(b *testing.B) {
			var took []time.Duration
			before := worked(b)
			for b.Loop() {
				began := time.Now()
				answer, err := what.by.Get(what.url)
				if err != nil {
					b.Fatal(err)
				}
				text, err := io.ReadAll(answer.Body)
				answer.Body.Close()
				took = append(took, time.Since(began))
				if err != nil || answer.StatusCode != http.StatusOK || !strings.Contains(string(text), what.holds) {
					b.Fatalf("%s %v: no %q in %.500s", answer.Status, err, what.holds, text)
				}
			}
			slices.Sort(took)
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			b.ReportMetric(ms(worked(b)-before)/float64(len(took)), "ms-CPU")
			b.ReportMetric(ms(took[len(took)/2]), "ms-median")
			b.ReportMetric(ms(took[len(took)*99/100]), "ms-p99")
		})
	}
}
