package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestThePackageInstallsOnABareDebian makes the package and installs it where
// nothing is but what Debian calls its smallest system, in a namespace without
// any network but loopback.
func TestThePackageInstallsOnABareDebian(t *testing.T) {
	debootstrap := peer(t, "debootstrap")
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("a system of its own needs root")
		}
		t.Skip("a system of its own needs root")
	}
	t.Setenv("DPKG_DEB_COMPRESSOR_TYPE", "none") // dpkg-deb(1); to compress it twice would take most of the time
	out, bin := t.TempDir(), binary(t)
	pkg := strings.TrimSpace(command(t, "debian/build", bin, "v1.2.3", out))
	if want := "lunboot_1.2.3_"; !strings.HasPrefix(filepath.Base(pkg), want) {
		t.Errorf("the package is %s, want %s…", pkg, want)
	}
	newer := strings.TrimSpace(command(t, "debian/build", bin, "v1.10.0-3-gabcdef0", out))

	root := filepath.Join(t.TempDir(), "root")
	command(t, debootstrap, "--variant=minbase", "bookworm", root)
	for _, p := range []string{pkg, newer} {
		command(t, "cp", p, filepath.Join(root, "tmp/"))
	}
	// in runs a script there, in namespaces of its own: what it starts ends with
	// it, and reaches no network.
	in := func(script string) string {
		t.Helper()
		return command(t, "unshare", "--net", "--pid", "--fork", "--mount", "--kill-child", "--mount-proc="+filepath.Join(root, "proc"), "chroot", root, "/bin/sh", "-ec", "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"+script)
	}
	in("dpkg -i /tmp/" + filepath.Base(pkg))
	if got := in("lunboot version"); strings.TrimSpace(got) == "" {
		t.Error("lunboot version says nothing")
	}
	in(`test "$(stat -c '%U:%G %a' /var/lib/lunboot)" = 'lunboot:lunboot 750'
		test -L /etc/systemd/system/multi-user.target.wants/lunboot.service
		test "$(getent passwd lunboot | cut -d: -f7)" = /usr/sbin/nologin
		dpkg -V lunboot`)

	// It runs as its user, and what it keeps outlives an upgrade, a removal and a
	// purge: the volumes are machines' disks.
	serve := `setpriv --reuid lunboot --regid lunboot --init-groups lunboot serve --admin 127.0.0.1:0 --boot 127.0.0.1:0 --tftp 127.0.0.1:0 --iscsi 127.0.0.1:0 --dhcp off 2>/tmp/log &
		for i in $(seq 300); do grep -q 'the appliance is up' /tmp/log && break; sleep 0.1; done
		grep -q 'the appliance is up' /tmp/log || { cat /tmp/log; exit 1; }
		`
	in(serve + `lunboot volume create golden --size 8M
		lunboot volume list | grep golden
		lunboot doctor || test $? = 1
		kill $!; wait $!`)
	in("echo LUNBOOT_LOG_FORMAT=json >>/etc/default/lunboot; dpkg -i /tmp/" + filepath.Base(newer) + "; grep -q JSON -i /etc/default/lunboot; dpkg-query -W -f '${Version}' lunboot | grep -q '^1.10.0+3+'")
	in(serve + "lunboot volume list | grep golden; kill $!; wait $!")
	in(`dpkg -r lunboot && test ! -e /usr/bin/lunboot && test -e /etc/default/lunboot && test -e /var/lib/lunboot/inventory.db
		dpkg -P lunboot | grep -q 'is kept' && test ! -e /etc/default/lunboot && ls /var/lib/lunboot/volumes/golden*`)
}
