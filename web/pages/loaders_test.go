package pages

import (
	"bytes"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"lunboot/store"
	"lunboot/web/auth"
)

func TestThePageOfTheLoadersSaysWhatEachIsFor(t *testing.T) {
	get, post := full().enter(t)
	code, body := get("/loaders")
	if code != http.StatusOK {
		t.Fatalf("status %d", code)
	}
	has(t, body, "snponly.efi", "iSCSI, NFS", "cannot be told", "Worked on 12 machines, silent on 1.", "Every machine of its kind is given this first.", "GPL-2.0-or-later", strings.Repeat("a1", 32), "UEFI", "grubx64.efi and shimx64.efi", `enctype="multipart/form-data"`)
	if code, body := post("/loaders/remove", "name", "secure"); code != http.StatusUnprocessableEntity || !strings.Contains(body, `<details class="gone" open="">`) {
		t.Errorf("without its name typed, a removal answers %d", code)
	}
	if code, to := post("/loaders/remove", "name", "secure", "confirm", "secure"); code != http.StatusSeeOther || to != "/loaders" {
		t.Errorf("a removal answers %d %s", code, to)
	}
}

// upload sends the form as a browser does.
func (l *lab) upload(t *testing.T, fields ...string) (int, string) {
	t.Helper()
	return l.uploadTo(t, "/loaders", fields...)
}

func (l *lab) uploadTo(t *testing.T, to string, fields ...string) (int, string) {
	t.Helper()
	hash, err := auth.HashPassword(labPassword)
	if err != nil {
		t.Fatal(err)
	}
	l.users["admin"] = hash
	base, c := l.open(t)
	c.Jar, _ = cookiejar.New(nil)
	if _, err := c.PostForm(base+"/login", url.Values{"password": {labPassword}}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "file" {
			part, err := w.CreateFormFile("file", fields[i+1])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := part.Write([]byte("MZ and more")); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	res, err := c.Post(base+to, w.FormDataContentType(), &b)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body.String()
}

func TestALoaderIsUploadedWithoutScript(t *testing.T) {
	l := full()
	if code, body := l.upload(t, "name", "", "chain", "secure", "role", "second", "file", "ipxe.efi"); code != http.StatusSeeOther {
		t.Fatalf("it answers %d %s", code, body)
	}
	if want := []string{"{Name: File:ipxe.efi Chain:secure Role:second} 11 bytes"}; !slices.Equal(l.uploads, want) {
		t.Errorf("taken %v, want %v", l.uploads, want)
	}
	if code, body := full().upload(t, "name", "x.efi"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "hoose a file") {
		t.Errorf("without a file it answers %d", code)
	}
	l = full()
	l.refuse = store.Invalid("file", "ipxe.efi is not accepted: it is a text file, not a loader")
	if code, body := l.upload(t, "file", "ipxe.efi"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "it is a text file") {
		t.Errorf("a refusal answers %d", code)
	}
}

func TestAMachineIsGivenALoaderOfItsOwn(t *testing.T) {
	l := full()
	get, post := l.enter(t)
	_, body := get("/machines/2")
	has(t, body, `<option value="secure">chain secure</option>`, `<option value="snponly.efi">snponly.efi</option>`)
	if strings.Contains(body, `value="undionly.kpxe"`) || strings.Contains(body, "grubx64.efi") {
		t.Error("a UEFI machine is offered a loader for BIOS, or half a chain")
	}
	if code, to := post("/machines/2/loader", "loader", "secure"); code != http.StatusSeeOther || l.machines[1].Loader != "secure" {
		t.Errorf("it answers %d %s; the loader is %q", code, to, l.machines[1].Loader)
	}
	_, body = get("/machines/2")
	has(t, body, `<option value="secure" selected>`)
	l.machines[1].Loader = "gone.efi"
	_, body = get("/machines/2")
	has(t, body, `<option value="gone.efi" selected>gone.efi</option>`)
}
